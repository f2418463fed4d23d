//! Windows and cycles over files, beside DuckDB and Bytewax.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::measure::{Measured, peer, taktline};
use crate::report::Report;
use crate::rows;

/// Windows and cycles over files, beside DuckDB and Bytewax on the same rows.
#[derive(clap::Args)]
pub struct WindowArgs {
    /// The `taktline` to measure, built with `--release`.
    #[arg(long)]
    taktline: PathBuf,
    /// Where the rows are kept between runs.
    #[arg(long, default_value = "/tmp/taktline-bench")]
    work: PathBuf,
    /// How many rows.
    #[arg(long, default_value_t = 5_000_000)]
    rows: usize,
    /// Workers and threads.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Runs of each; the middle one counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the result is written.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// Bytewax is so much slower that it gets a part of the rows.
const BYTEWAX_ROWS: usize = 200_000;

/// Measures all of it, and writes `window.md`.
///
/// # Errors
/// A program is missing or fails.
pub fn window(args: &WindowArgs) -> anyhow::Result<()> {
    let (csv, parquet) = rows::files(&args.work, args.rows)?;
    let mut report = Report::new(&args.taktline, args.rows, args.workers)?;
    for (input, file) in [("CSV", &csv), ("Parquet", &parquet)] {
        let ours = run(args, "window", file, args.workers)?;
        let one = run(args, "window", file, 1)?;
        let out = args.work.join("duckdb.parquet");
        let threads = args.workers.to_string();
        let duckdb = peer(
            "duckdb_window.py",
            &[path(file)?, path(&out)?, &threads],
            args.rows,
            args.runs,
        )?;
        report.line(
            &format!("window, {input}, {} workers", args.workers),
            &ours,
            Some(("DuckDB batch scan", &duckdb)),
        );
        report.line(
            &format!("window, {input}, 1 worker"),
            &one,
            Some(("DuckDB batch scan, 2 threads", &duckdb)),
        );
        if input == "CSV" {
            let limit = BYTEWAX_ROWS.min(args.rows);
            let bytewax = peer("bytewax_window.py", &[path(file)?, &limit.to_string()], limit, 1)?;
            report.line("window, CSV, 1 worker", &one, Some(("Bytewax, 1 worker", &bytewax)));
        }
        let cycles = run(args, "cycles", file, args.workers)?;
        report.line(
            &format!("cycle + compare + health + alert, {input}, {} workers", args.workers),
            &cycles,
            None,
        );
    }
    print!("{report}");
    report.save(&args.results)
}

fn run(args: &WindowArgs, pipeline: &str, file: &Path, workers: usize) -> anyhow::Result<Measured> {
    taktline(&args.taktline, pipeline, file, workers, args.rows, args.runs)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}
