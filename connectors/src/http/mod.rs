//! The `http` source: machines, gateways and microcontrollers push their samples.
//!
//! From the bottom up: `catalogue` (streams and their signals), `verdicts` (on each row of a body), `members` (what a row means), `json`, `line`
//! and `arrow` (bodies to rows), `body` (unpacking, and the format), `reads` (our own forms or `decode`), `raw` (raw batches), `queue` (between
//! the senders and the dataflow, and who waits for the journal), `keys` (what repeats is answered again), `rate`, `access`, `encrypted`,
//! `connections`, `fault` (what is said when something isn't taken), `server` (the routes), `source` (settings and contract).

mod access;
mod arrow;
mod body;
mod catalogue;
mod connections;
mod encrypted;
mod fault;
mod json;
mod keys;
mod line;
mod members;
mod queue;
mod rate;
mod raw;
mod reads;
mod server;
pub mod source;
mod verdicts;
