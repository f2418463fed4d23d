//! MQTT 3.1.1 and 5.
//!
//! From the bottom up: `endpoint` (which broker, as whom), `link` (the client crates in one form), `client` (a connection that comes
//! back by itself), [`source`], [`sink`], and [`broker`], a broker inside the process for the demo.

mod client;
mod endpoint;
mod link;

pub mod broker;
pub mod sink;
pub mod source;
