//! Taktline, the binary: the command line and the HTTP API over the crates below it.
//!
//! - [`catalog`]: all kinds, from the crates that have them.
//! - [`load`]: a pipeline file and the command line make a plan.
//! - [`cli`]: the commands; [`run`], [`demo`], [`verify`] (`taktline test`), [`tap`], [`init`], [`dry`]
//!   (`run --dry-run`) do the work of one each.
//! - [`state`]: where a run keeps its state; [`savepoint`]: `taktline checkpoint`; [`cluster`]: several processes.
//! - [`recorded`]: a pipeline over recorded samples: its own tests, and backfill.
//! - [`client`]: what the command line asks of a running pipeline.
//! - [`api`]: health, metrics, live rows; [`board`]: what the page shows, kept up to date; [`shelf`]: its last cycles; [`live`]: its WebSocket;
//!   [`page`]: the page itself, embedded at build.

pub mod api;
pub mod board;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod demo;
pub mod dry;
pub mod init;
pub mod live;
pub mod load;
pub mod page;
pub mod recorded;
pub mod rows;
pub mod run;
pub mod savepoint;
pub mod shelf;
pub mod state;
pub mod tap;
pub mod verify;
