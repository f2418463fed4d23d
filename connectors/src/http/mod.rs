//! The `http` source: machines, gateways and microcontrollers push their samples.
//!
//! From the bottom up: `precision` (what a number in a time counts), `catalogue` (streams and their signals), `rows` (the verdict on each row of a
//! body), `json`, `line` and `arrow` (bodies to rows), `body` (which of them, and unpacking), `raw` (raw batches), `queue` (between the senders and
//! the dataflow, and who waits for the journal), `keys` (what repeats is answered again), `rate`, `access`, `encrypted`, `fault` (what is said when something
//! isn't taken), `server` (the routes), `source` (settings and contract).

mod access;
mod arrow;
mod body;
mod catalogue;
mod encrypted;
mod fault;
mod json;
mod keys;
mod line;
mod precision;
mod queue;
mod rate;
mod raw;
mod rows;
mod server;
pub mod source;
