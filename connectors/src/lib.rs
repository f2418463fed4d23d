//! Sources and sinks of Taktline, one folder or file each, one row each in [`SOURCES`] and [`SINKS`].
//!
//! - [`file`](mod@file): CSV, Parquet and NDJSON; [`simulate`]: a press line. `replay` paces both.
//! - [`mqtt`]: source and sink, and the broker of the demo; [`sparkplug`]: edge nodes on such a broker.
//! - [`kafka`]: source and sink. [`http`]: samples that are pushed.
//! - [`codec`]: payload formats, for all sources that bring messages. [`survey`]: guesses about messages and files, for `taktline init`.
//! - [`history`]: Delta tables; [`stdout`]: rows for other programs; [`file_sink`]: rows as files; [`webhook`] and [`email`]: rows that
//!   call somebody, with `cells` (templates over columns) and `retry`.
//! - `durable`: small files that are whole after a crash.
//! - `time`: times as they come in; `rows`: samples in the making. All sources share them. `tls`: how connections are secured.

mod cells;
pub mod codec;
mod durable;
pub mod email;
pub mod file;
pub mod file_sink;
pub mod history;
pub mod http;
pub mod kafka;
pub mod mqtt;
mod replay;
mod retry;
mod rows;
pub mod simulate;
pub mod sparkplug;
pub mod stdout;
pub mod survey;
mod time;
mod tls;
pub mod webhook;

use taktline_engine::kind::{SinkKind, SourceKind};

/// The kinds of sources.
pub const SOURCES: &[SourceKind] = &[
    file::KIND,
    simulate::KIND,
    mqtt::source::KIND,
    sparkplug::source::KIND,
    kafka::source::KIND,
    http::source::KIND,
];

/// The kinds of sinks.
pub const SINKS: &[SinkKind] = &[
    history::KIND,
    mqtt::sink::KIND,
    kafka::sink::KIND,
    webhook::KIND,
    email::KIND,
    file_sink::KIND,
    stdout::KIND,
];
