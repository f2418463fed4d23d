//! Payload formats: from messages as they came to rows.
//!
//! From the bottom up: [`json`] (pointers into documents, rows to JSON), `topic` (patterns and templates), `message` (raw batches of
//! messages), `decode` (what a payload means, and the decoder that all message sources share).

pub mod json;

pub(crate) mod decode;
pub(crate) mod message;
pub(crate) mod topic;
