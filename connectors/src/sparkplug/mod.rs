//! Sparkplug B: edge nodes that say by births what they measure, and by deaths that they no longer do.
//!
//! From the bottom up: `topic` (who says what), `order` (messages by their sequence numbers), `catalogue` (what births say: names,
//! aliases, types), `node` (one edge node), `host` (all of them, to samples), [`source`].

mod catalogue;
mod host;
mod node;
mod order;
mod topic;

pub mod source;
