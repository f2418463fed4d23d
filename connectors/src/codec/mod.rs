//! Payload formats: from messages as they came to rows, and from rows to payloads.
//!
//! From the bottom up:
//!
//! - `message`: raw batches of messages; `topic`: patterns and templates; `address`: what a message says besides its payload.
//! - `pointer`, `query`: pointers into documents and what stands there, in one pass; `leaf`: rows of cells as documents.
//! - The formats as documents: [`json`], `csv`, `influx`, `avro` (with `registry`), `protobuf`, `arrow_ipc`; `sparkplug`.
//! - `config`: the `decode` section, `preset` its short forms, `signals` which signals and what is made of them; `reading`: all of it
//!   checked and resolved.
//! - `sample`: times, values and texts; `letters`: what is bad about a payload; `columns`: rows in the making; `decode`: the decoder that all
//!   message sources share.
//! - `encode`, `avro_encode`: rows to payloads, for sinks. `fuzz` (tests): any bytes through any decoder.

pub mod json;

pub(crate) mod address;
pub(crate) mod arrow_ipc;
mod avro;
mod avro_encode;
mod columns;
pub(crate) mod config;
pub(crate) mod csv;
pub(crate) mod decode;
pub(crate) mod encode;
#[cfg(test)]
mod fuzz;
pub(crate) mod influx;
mod leaf;
pub(crate) mod letters;
pub mod message;
pub(crate) mod pointer;
mod preset;
mod protobuf;
pub(crate) mod query;
pub(crate) mod reading;
pub(crate) mod registry;
pub(crate) mod sample;
pub(crate) mod signals;
pub(crate) mod sparkplug;
pub(crate) mod topic;

/// At most 40 characters of a text, for messages.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
