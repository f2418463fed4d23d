//! Memory when ten times as much comes as the sink takes.

use std::io::Read;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::acknowledged::message;
use super::{DurabilityArgs, options};
use crate::broker::Broker;
use crate::messages::Publisher;
use crate::page::Section;
use crate::rows;
use crate::running::{Metrics, Running, memory, said};

/// How long each is watched.
const WATCHED: Duration = Duration::from_secs(30);
const SLOWER: f64 = 10.0;
const LIMIT: Duration = Duration::from_secs(600);
/// The limit of memory, of what the run takes without one. The queues between a broker and the journal are the program's own: a limit
/// below them would end it.
const FILE_SHARE: f64 = 0.85;
const MESSAGES_SHARE: f64 = 1.1;

/// A file, whose reading waits, and messages, which can't.
pub fn measure(args: &DurabilityArgs) -> anyhow::Result<Section> {
    let work = tempfile::tempdir_in(&args.work)?;
    let csv = rows::csv(&args.work, args.rows)?;
    let free = file(args, work.path(), &csv, &Case::named("free"))?;
    let slow = file(args, work.path(), &csv, &Case::named("slow").paced(&free))?;
    let narrow = file(
        args,
        work.path(),
        &csv,
        &Case::named("narrow").paced(&free).limited(&slow, FILE_SHARE),
    )?;
    let broker = Broker::start(work.path())?;
    let came = messages(args, work.path(), &broker, &Case::named("came"))?;
    let flood = messages(args, work.path(), &broker, &Case::named("flood").paced(&came))?;
    let held = messages(
        args,
        work.path(),
        &broker,
        &Case::named("held").paced(&came).limited(&flood, MESSAGES_SHARE),
    )?;
    for seen in [&narrow, &held] {
        let limit = seen.limit_mib.context("a limit")? as f64;
        ensure!(
            seen.peak_mib < limit,
            "memory went over the limit: {} of {limit} MiB",
            seen.peak_mib
        );
    }
    Ok(Section {
        title: "Ten times more than the sink takes",
        note: format!(
            "Rows to `stdout`, whose reader takes them as fast as it can, or a tenth of that, for {} s \
             (`bench/pipelines/overload.yaml`, `overload-mqtt.yaml`). A file waits. {} MQTT messages came as fast as the broker gave \
             them, to a journal of 16 MiB that lets the oldest go; afterwards the reader was let loose, and what it got and what was \
             dropped were as many as had come. `memory.limit` is set to {FILE_SHARE} of what the run took without one, with messages to {MESSAGES_SHARE}; from \
             four fifths of it on epochs go one at a time.",
            WATCHED.as_secs(),
            args.messages
        ),
        columns: vec![
            "what",
            "taken by the reader",
            "`memory.limit`",
            "resident memory, most",
            "dropped",
            "journal, most",
        ],
        rows: vec![
            free.line("file, fast reader"),
            slow.line("file, a tenth"),
            narrow.line("file, a tenth, limited"),
            came.line("messages, fast reader"),
            flood.line("messages, a tenth"),
            held.line("messages, a tenth, limited"),
        ],
    })
}

/// One run.
struct Case {
    name: &'static str,
    /// Bytes per second that the reader takes.
    pace: Option<f64>,
    limit_mib: Option<u64>,
}

impl Case {
    fn named(name: &'static str) -> Self {
        Case {
            name,
            pace: None,
            limit_mib: None,
        }
    }

    /// With a reader so much slower than that one.
    fn paced(mut self, fast: &Seen) -> Self {
        self.pace = Some(fast.rate / SLOWER);
        self
    }

    /// With a limit at a share of what that one took.
    fn limited(mut self, free: &Seen, share: f64) -> Self {
        self.limit_mib = Some((free.peak_mib * share) as u64);
        self
    }

    /// The options of a run with this and more overrides.
    fn options(&self, workers: usize, overrides: &[String]) -> Vec<String> {
        let limit = self.limit_mib.map(|mib| format!("memory.limit={mib}MiB"));
        let sets = overrides.iter().cloned().chain(limit);
        options(workers, &[])
            .into_iter()
            .chain(sets.flat_map(|set| ["--set".to_owned(), set]))
            .collect()
    }

    fn seen(&self, rate: f64, pid: u32) -> anyhow::Result<Seen> {
        Ok(Seen {
            rate,
            limit_mib: self.limit_mib,
            peak_mib: memory(pid, "VmHWM")? / f64::from(1 << 20),
            dropped: None,
            journal_mib: None,
        })
    }
}

struct Seen {
    /// Bytes per second.
    rate: f64,
    limit_mib: Option<u64>,
    peak_mib: f64,
    dropped: Option<(f64, f64)>,
    journal_mib: Option<f64>,
}

impl Seen {
    fn line(&self, name: &str) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".into());
        vec![
            name.to_owned(),
            format!("{:.2} MB/s", self.rate / 1e6),
            or_none(self.limit_mib.map(|mib| format!("{mib} MiB"))),
            format!("{:.0} MiB", self.peak_mib),
            or_none(self.dropped.map(|(dropped, all)| format!("{dropped} of {all}"))),
            or_none(self.journal_mib.map(|mib| format!("{mib:.0} MiB"))),
        ]
    }
}

fn file(args: &DurabilityArgs, work: &Path, csv: &Path, case: &Case) -> anyhow::Result<Seen> {
    let data = work.join(case.name);
    let settings = case.options(args.workers, &[format!("sources.rows.path={}", csv.display())]);
    let (mut run, out) = Running::start_piped(&args.taktline, "bench/pipelines/overload.yaml", &data, &settings)?;
    let reader = Reader::start(out, case.pace);
    run.until(LIMIT, |metrics| metrics.of("taktline_rows_in_total", "out") > 0.0)?;
    let (begun, before) = (Instant::now(), reader.bytes());
    std::thread::sleep(WATCHED);
    let rate = (reader.bytes() - before) as f64 / begun.elapsed().as_secs_f64();
    run.metrics()?; // an error if it has ended: then there were too few rows to watch
    case.seen(rate, run.pid())
}

fn messages(args: &DurabilityArgs, work: &Path, broker: &Broker, case: &Case) -> anyhow::Result<Seen> {
    let data = work.join(case.name);
    let url = format!("sources.plc.url={}", broker.url());
    let id = format!("sources.plc.client_id=bench-{}", case.name);
    let settings = case.options(args.workers, &[url, id]);
    let pipeline = "bench/pipelines/overload-mqtt.yaml";
    let (mut run, out) = Running::start_piped(&args.taktline, pipeline, &data, &settings)?;
    let reader = Reader::start(out, case.pace);
    run.until(LIMIT, |metrics| metrics.of("taktline_checkpoints_total", "") > 0.0)?;
    let begun = Instant::now();
    Publisher::connect(broker).send((0..args.messages).map(message))?;
    let rate = reader.bytes() as f64 / begun.elapsed().as_secs_f64();
    let all = args.messages as f64;
    let dropped = |metrics: &Metrics| metrics.of("taktline_journal_dropped_rows_total", "plc");
    let came = |metrics: &Metrics| metrics.of("taktline_journal_rows_total", "plc") >= all;
    let (_, metrics) = run.until(LIMIT, came)?;
    let journal_mib = metrics.of("taktline_journal_bytes", "plc") / f64::from(1 << 20);
    reader.let_loose();
    let taken = |metrics: &Metrics| metrics.of("taktline_rows_in_total", "out") + dropped(metrics);
    let (_, metrics) = run.until(LIMIT, |metrics| taken(metrics) >= all)?;
    let journaled = metrics.of("taktline_journal_rows_total", "plc");
    ensure!(
        taken(&metrics) == all && journaled == all,
        "of {all} messages {journaled} came, and {} were taken or dropped; the run said last:\n{}",
        taken(&metrics),
        said(&data.with_extension("log"))
    );
    Ok(Seen {
        dropped: Some((dropped(&metrics), all)),
        journal_mib: Some(journal_mib),
        ..case.seen(rate, run.pid())?
    })
}

/// Reads at most so many bytes per second, until it is let loose.
struct Reader {
    bytes: Arc<AtomicU64>,
    /// Bytes per second; `u64::MAX` is as fast as can be.
    pace: Arc<AtomicU64>,
}

impl Reader {
    fn start(mut out: ChildStdout, pace: Option<f64>) -> Self {
        let reader = Reader {
            bytes: Arc::default(),
            pace: Arc::new(AtomicU64::new(pace.map_or(u64::MAX, |pace| pace as u64))),
        };
        let (bytes, pace) = (Arc::clone(&reader.bytes), Arc::clone(&reader.pace));
        std::thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            while let Ok(read @ 1..) = out.read(&mut block) {
                bytes.fetch_add(read as u64, Ordering::AcqRel);
                let begun = Instant::now();
                loop {
                    let due = read as f64 / pace.load(Ordering::Acquire) as f64;
                    let rest = due - begun.elapsed().as_secs_f64();
                    if rest <= 0.0 {
                        break;
                    }
                    std::thread::sleep(Duration::from_secs_f64(rest.min(0.01)));
                }
            }
        });
        reader
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    fn let_loose(&self) {
        self.pace.store(u64::MAX, Ordering::Release);
    }
}
