//! MQTT 3.1.1 and 5.
//!
//! From the bottom up: `endpoint` (which broker, as whom), `distrust` (what TLS says went wrong), `gathered`, `socket` and `session` (what the
//! client crates leave to us), `link` (the client crates in one form), `client` (a connection that comes back by itself), `queue` (what
//! came in), `deliveries` (what came twice), `gap` (what may not have come), `note` (how raw rows say both), [`source`], [`sink`], and
//! [`broker`], a broker inside the process for the demo.

pub(crate) mod client;
mod deliveries;
mod distrust;
pub(crate) mod endpoint;
pub(crate) mod gap;
mod gathered;
pub(crate) mod link;
mod note;
pub(crate) mod queue;
mod session;
mod socket;

pub mod broker;
pub mod sink;
pub mod source;
