//! MQTT 3.1.1 and 5.
//!
//! From the bottom up: `topic` (patterns and templates), `endpoint` (which broker, as whom), `link` (the client crates in
//! one form), `client` (a connection that comes back by itself), `decode` (payloads to samples), [`source`], [`sink`],
//! and [`broker`], a broker inside the process for the demo.

mod client;
mod decode;
mod endpoint;
mod link;
mod topic;

pub mod broker;
pub mod sink;
pub mod source;
