//! Sources and sinks of Taktline, one folder or file each, one row each in [`SOURCES`] and [`SINKS`].
//!
//! - [`file`](mod@file): CSV, Parquet and NDJSON; [`simulate`]: a press line. `replay` paces both.
//! - [`mqtt`]: source and sink, and the broker of the demo; [`codec`]: payload formats.
//! - [`history`]: Delta tables; [`stdout`]: rows for other programs.
//! - `time`: times as they come in; `rows`: samples in the making. All sources share them. `tls`: how connections are secured.

pub mod codec;
pub mod file;
pub mod history;
pub mod mqtt;
mod replay;
mod rows;
pub mod simulate;
pub mod stdout;
mod time;
mod tls;

use taktline_engine::kind::{SinkKind, SourceKind};

/// The kinds of sources.
pub const SOURCES: &[SourceKind] = &[file::KIND, simulate::KIND, mqtt::source::KIND];

/// The kinds of sinks.
pub const SINKS: &[SinkKind] = &[history::KIND, mqtt::sink::KIND, stdout::KIND];
