//! Kafka: topics as a source that can be read again, and a sink that writes each row exactly once.
//!
//! From the bottom up: `connect` (which brokers, as whom; what a client hears from them), `topics` (which, and from where), `place`
//! (offsets by topic and partition), `headers`, `queue` (messages on their way to the dataflow), `watch` (the thread that finds partitions
//! and looks after them), [`source`]; `outbox` (staged rows on disk), `progress` (what was published, as Kafka knows it), `courier` (outbox to topic), [`sink`].

mod connect;
mod courier;
mod headers;
mod outbox;
mod place;
mod progress;
mod queue;
mod topics;
mod watch;

pub mod sink;
pub mod source;
