//! `taktline run --dry-run`: connects, decodes some rows, shows them, and writes nothing.

use std::time::Duration;

use anyhow::ensure;
use arrow::array::RecordBatch;
use taktline_connectors::stdout::{self, Format};
use taktline_engine::look::{Looked, Until, look};
use taktline_engine::plan::{Plan, PlannedSource};
use taktline_engine::table;

/// Rows of each source that are shown.
const ROWS: usize = 100;
/// How long is waited for them.
const PATIENCE: Duration = Duration::from_secs(10);
/// Raw bytes of a source that are read, at most.
const BYTES: usize = 64 << 20;
/// Reasons of dead letters that are shown.
const REASONS: usize = 5;

/// Shows the first rows of every source on stdout, what was refused on stderr.
///
/// # Errors
/// Nothing comes of a source.
pub fn dry_run(plan: &Plan, format: Format) -> anyhow::Result<()> {
    let mut silent = Vec::new();
    for planned in &plan.sources {
        let until = Until {
            rows: ROWS,
            bytes: BYTES,
            time: PATIENCE,
        };
        let looked = match look(planned.source.as_ref(), &until) {
            Ok(looked) => looked,
            Err(error) => {
                // The others may be looked at all the same.
                eprintln!("source {} ({}): {error:#}", planned.name, planned.kind);
                silent.push(planned.name.as_str());
                continue;
            }
        };
        tell(planned, &looked);
        show(&looked, format)?;
        if looked.rows() == 0 {
            silent.push(planned.name.as_str());
        }
    }
    ensure!(
        silent.is_empty(),
        "no row came of {}; nothing was written",
        silent.join(", ")
    );
    eprintln!("a dry run: no step ran, and nothing was written or acknowledged");
    Ok(())
}

fn tell(planned: &PlannedSource, looked: &Looked) {
    let shown = looked.rows().min(ROWS);
    let end = if looked.ended { ", then its end" } else { "" };
    eprintln!(
        "source {} ({}): {shown} rows in {:.1} s{end}; {} refused",
        planned.name,
        planned.kind,
        looked.took.as_secs_f64(),
        looked.refused()
    );
    let mut said: Vec<&str> = looked.reasons().collect();
    said.sort();
    said.dedup();
    for reason in said.iter().take(REASONS) {
        eprintln!("  refused: {reason}");
    }
}

fn show(looked: &Looked, format: Format) -> anyhow::Result<()> {
    let mut printer = stdout::printer(format, &[table::samples()]);
    let mut left = ROWS;
    for batch in looked.samples.iter().filter(|batch| batch.num_rows() > 0) {
        let rows: RecordBatch = batch.slice(0, left.min(batch.num_rows()));
        left -= rows.num_rows();
        if rows.num_rows() > 0 {
            printer.write(0, &rows)?;
        }
    }
    printer.stage(1)?;
    Ok(())
}
