//! `taktline init`: listens to a broker or looks into a file, and writes a commented pipeline file that runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use arrow::array::{Array, RecordBatch};
use taktline_connectors::survey::{self, Proposal, in_quotes, one_line, quoted};
use taktline_engine::Samples;
use taktline_engine::config::Interval;
use taktline_engine::look::{Looked, Until, look};
use taktline_engine::plan::{Plan, compile};
use taktline_operators::kernels::trigger_search::{Candidate, Tell, candidate};

use crate::catalog::CATALOG;
use crate::load::{Wrong, environment};

/// Arguments of `taktline init`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["mqtt", "kafka", "file"]))]
#[group(skip)]
pub struct InitArgs {
    /// Listen to an MQTT broker: mqtt://host:1883.
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// Read from Kafka: host:9092,host:9092.
    #[arg(long, value_name = "BROKERS", requires = "topic")]
    kafka: Option<String>,
    /// Look into a file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Kafka's topic; for MQTT a filter like plant/#.
    #[arg(long)]
    topic: Option<String>,
    /// User to sign in as.
    #[arg(long)]
    user: Option<String>,
    /// Name of the environment variable with the user's password; the pipeline file names it too.
    #[arg(long, value_name = "NAME", requires = "user")]
    password_env: Option<String>,
    /// How long to listen.
    #[arg(long, value_name = "INTERVAL", default_value = "20s")]
    listen: String,
    /// The file to write; `-` is stdout.
    #[arg(long, short, default_value = "pipeline.yaml")]
    output: PathBuf,
}

/// Raw bytes that are looked at.
const BYTES: usize = 256 << 20;
/// Rows of a file that are looked at.
const ROWS: usize = 3_000_000;

/// Writes the pipeline file; says on stderr what was found.
///
/// # Errors
/// Nothing comes, nothing that comes can be read, or the file is there already.
pub fn init(args: &InitArgs) -> anyhow::Result<()> {
    let stdout = args.output == Path::new("-");
    ensure!(
        stdout || !args.output.exists(),
        "{} is there already; name another file with --output",
        args.output.display()
    );
    let listen: Interval = args.listen.parse().map_err(anyhow::Error::msg)?;
    let listen = Duration::from_micros(listen.micros().unsigned_abs());
    let (kind, fixed) = fixed(args);
    let (proposal, looked) = match &args.file {
        Some(path) => {
            let proposal = survey::file::propose(path)?;
            let looked = decode(&kind, &fixed, &proposal, None)?;
            (proposal, looked)
        }
        None => listen_to(args, &kind, &fixed, listen)?,
    };
    for line in &proposal.seen {
        eprintln!("{line}");
    }
    ensure!(
        looked.rows() > 0,
        "of what came, no row could be read; the first reason: {}",
        looked.reasons().next().unwrap_or("none was given")
    );
    let machines = series(&looked.samples)?;
    let told = told(&machines);
    report(&machines, told.best.as_ref());
    let text = write(&kind, &fixed, &proposal, &told);
    compile("init", &text, &[], &CATALOG, &environment).map_err(Wrong)?; // what is written must run
    if stdout {
        std::io::stdout().write_all(text.as_bytes())?;
    } else {
        std::fs::write(&args.output, &text).with_context(|| args.output.display().to_string())?;
        let until_end = if args.file.is_some() { " --until-end" } else { "" };
        eprintln!("wrote {0}; next: taktline run {0}{until_end}", args.output.display());
    }
    Ok(())
}

/// The kind of source and the settings that the user gave.
fn fixed(args: &InitArgs) -> (String, Vec<String>) {
    let mut lines = Vec::new();
    let kind = match (&args.mqtt, &args.kafka) {
        (Some(url), _) => {
            lines.push(format!("url: {}", quoted(url)));
            "mqtt"
        }
        (_, Some(brokers)) => {
            lines.push(format!("brokers: {}", quoted(brokers)));
            lines.push(format!(
                "topics: [{}]",
                quoted(args.topic.as_deref().unwrap_or_default())
            ));
            "kafka"
        }
        _ => "file",
    };
    if let Some(user) = &args.user {
        lines.push(format!("user: {}", quoted(user)));
    }
    if let Some(name) = &args.password_env {
        lines.push(format!("password: {{env: {}}}", quoted(name)));
    }
    (kind.to_owned(), lines)
}

/// Listens with a source that takes every payload as it is, then reads what came as the proposal says.
fn listen_to(args: &InitArgs, kind: &str, fixed: &[String], listen: Duration) -> anyhow::Result<(Proposal, Looked)> {
    let mut open = Proposal::default();
    open.lines.push(("machine: machine".into(), None));
    open.lines.push(("signal: signal".into(), None));
    open.lines.push(("decode: {format: text}".into(), None));
    if kind == "mqtt" {
        let filter = args.topic.as_deref().unwrap_or("#");
        open.lines.push((format!("topic: {}", in_quotes(filter)), None));
    } else {
        open.lines.push(("start: earliest".into(), None));
    }
    eprintln!("listening for {} s ...", listen.as_secs_f64());
    let plan = plan(kind, fixed, &open)?;
    let until = Until {
        rows: usize::MAX,
        bytes: BYTES,
        time: listen,
    };
    let heard = look(plan.sources[0].source.as_ref(), &until)?;
    let secs = heard.took.as_secs_f64();
    let proposal = match kind {
        "mqtt" => survey::messages::by_topic(&heard.raw, secs)?,
        _ => survey::messages::by_key(&heard.raw)?,
    };
    let Some(proposal) = proposal else {
        let came = heard.rows() + heard.refused();
        ensure!(
            came > 0,
            "nothing came in {secs:.0} s: is the topic right (--topic)? Try a longer --listen"
        );
        bail!(
            "{came} messages came in {secs:.0} s, and none that can be read: {}",
            survey::messages::unreadable(&heard.raw)?
        );
    };
    let looked = decode(kind, fixed, &proposal, Some(heard))?;
    Ok((proposal, looked))
}

/// The rows of a proposal: of raw batches that came already, or of the source itself.
fn decode(kind: &str, fixed: &[String], proposal: &Proposal, heard: Option<Looked>) -> anyhow::Result<Looked> {
    let plan = plan(kind, fixed, proposal)?;
    let source = plan.sources[0].source.as_ref();
    let Some(mut heard) = heard else {
        let until = Until {
            rows: ROWS,
            bytes: BYTES,
            time: Duration::from_secs(60),
        };
        return look(source, &until);
    };
    let mut decoder = source.decoder();
    heard.samples.clear();
    heard.dead_letters.clear();
    for raw in &heard.raw {
        let decoded = decoder.decode(raw)?;
        heard.samples.push(decoded.samples);
        heard.dead_letters.push(decoded.dead_letters);
    }
    Ok(heard)
}

fn plan(kind: &str, fixed: &[String], proposal: &Proposal) -> anyhow::Result<Plan> {
    let mut text = format!("version: 1\nsources:\n  source:\n    kind: {kind}\n");
    for line in fixed.iter().chain(proposal.lines.iter().map(|(line, _)| line)) {
        let _ = writeln!(text, "    {line}"); // a String takes everything
    }
    text.push_str("sinks:\n  out: {kind: stdout, from: source}\n");
    Ok(compile("init", &text, &[], &CATALOG, &environment).map_err(Wrong)?)
}

/// Times in µs and values.
type Series = (Vec<i64>, Vec<f64>);

/// By machine and signal.
type Machines = BTreeMap<String, BTreeMap<String, Series>>;

fn series(batches: &[RecordBatch]) -> anyhow::Result<Machines> {
    let mut machines = Machines::new();
    for batch in batches {
        let samples = Samples::of(batch)?;
        for row in 0..batch.num_rows() {
            let value = samples.value.value(row);
            if samples.value.is_null(row) || !value.is_finite() {
                continue;
            }
            let machine = samples.machines.value(samples.machine[row] as usize);
            let signal = samples.signals.value(samples.signal[row] as usize);
            if !machines.contains_key(machine) {
                machines.insert(machine.to_owned(), BTreeMap::new());
            }
            let Some(signals) = machines.get_mut(machine) else {
                continue;
            };
            if !signals.contains_key(signal) {
                signals.insert(signal.to_owned(), Series::default());
            }
            if let Some((ts, values)) = signals.get_mut(signal) {
                ts.push(samples.ts[row]);
                values.push(value);
            }
        }
    }
    Ok(machines)
}

/// What the signals tell of cycles.
struct Told {
    /// The signal whose cycles are clearest on most machines.
    best: Option<(String, Candidate)>,
    /// Clocks and numbers of batches: nothing to compare by.
    counters: Vec<String>,
}

fn told(machines: &Machines) -> Told {
    let mut found: BTreeMap<&str, (f64, Candidate)> = BTreeMap::new();
    // A condition has no way to write a name with a quote in it.
    let named = machines.values().flatten().filter(|(signal, _)| !signal.contains('"'));
    for (signal, (ts, values)) in named {
        let Some(candidate) = candidate(ts, values) else {
            continue;
        };
        match found.get_mut(signal.as_str()) {
            Some((score, known)) => {
                *score += candidate.score;
                if candidate.starts.len() > known.starts.len() {
                    *known = candidate;
                }
            }
            None => _ = found.insert(signal, (candidate.score, candidate)),
        }
    }
    let counts = |candidate: &Candidate| matches!(candidate.tell, Tell::GoesBack | Tell::Changes);
    let counters = found.iter().filter(|(_, (_, candidate))| counts(candidate));
    Told {
        counters: counters.map(|(signal, _)| (*signal).to_owned()).collect(),
        best: (found.into_iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0))).map(|(signal, (_, c))| (signal.to_owned(), c)),
    }
}

fn report(machines: &Machines, best: Option<&(String, Candidate)>) {
    for (machine, signals) in machines.iter().take(10) {
        let samples: usize = signals.values().map(|(ts, _)| ts.len()).sum();
        let names: Vec<&str> = signals.keys().map(String::as_str).take(12).collect();
        eprintln!(
            "machine {machine}: {samples} samples of {} signals: {}",
            signals.len(),
            names.join(", ")
        );
    }
    match best {
        Some((signal, found)) => eprintln!(
            "`{signal}` tells cycles: {} of them, every {:.3} s",
            found.starts.len(),
            found.period_us / 1e6
        ),
        None => eprintln!("no signal tells cycles; the file has windows in their place"),
    }
}

fn write(kind: &str, fixed: &[String], proposal: &Proposal, told: &Told) -> String {
    let mut text = String::from(
        "# Written by `taktline init` from what it saw; look at what it guessed and change what is wrong.\n",
    );
    for line in &proposal.seen {
        let _ = writeln!(text, "#   {line}");
    }
    let _ = write!(text, "version: 1\nsources:\n  plc:\n    kind: {kind}\n");
    for line in fixed {
        let _ = writeln!(text, "    {line}");
    }
    for (line, reason) in &proposal.lines {
        let _ = match reason {
            Some(reason) => writeln!(text, "    {line}  # {reason}"),
            None => writeln!(text, "    {line}"),
        };
    }
    let from = match &told.best {
        Some((signal, found)) => cycles(&mut text, signal, found, &told.counters),
        None => windows(&mut text),
    };
    let _ = write!(text, "sinks:\n  history: {{kind: history, from: [{from}]}}\n");
    text
}

fn cycles(text: &mut String, signal: &str, found: &Candidate, counters: &[String]) -> &'static str {
    let name = if signal.contains(|c: char| !c.is_alphanumeric() && c != '_') {
        format!("\"{signal}\"")
    } else {
        signal.to_owned()
    };
    let _ = write!(
        text,
        "steps:\n  # `{}` told {} cycles, one every {:.3} s (spread {:.0} %).\n  cycles:\n    kind: cycle\n    from: plc\n",
        one_line(signal),
        found.starts.len(),
        found.period_us / 1e6,
        100.0 * found.spread
    );
    let start = match found.tell {
        Tell::GoesBack => format!("{name} goes back"),
        Tell::Changes => format!("{name} changes"),
        Tell::Crosses { rise, .. } => format!("{name} rises above {rise}"),
    };
    let _ = writeln!(text, "    start: {}", scalar(&start));
    if let Tell::Crosses { fall, .. } = found.tell {
        let _ = writeln!(text, "    end: {}", scalar(&format!("{name} falls below {fall}")));
        let _ = writeln!(text, "    max: {}  # ten of them", interval(10.0 * found.period_us));
    }
    let ignored: Vec<String> = counters.iter().map(|name| quoted(name)).collect();
    let ignore = if ignored.is_empty() {
        String::new()
    } else {
        format!(", ignore: [{}]", ignored.join(", "))
    };
    let _ = write!(
        text,
        "  # Each cycle against 20 good ones; learn from better ones once you know them.\n  \
         compared: {{kind: compare, from: cycles, reference: {{first: 20}}, distance: dtw, window: 10%{ignore}}}\n"
    );
    text.push_str(
        "  health:   {kind: health, from: compared}\n  \
         worn:     {kind: alert, from: health, when: \"health < 60\", for: 2 of 3 cycles, clear: \"health > 70\"}\n",
    );
    "plc, cycles, compared, health, worn"
}

/// Rounded up, in the unit that people would take.
fn interval(us: f64) -> String {
    match us / 1e6 {
        seconds if seconds >= 10.0 => format!("{}s", seconds.ceil()),
        seconds => format!("{}ms", (1e3 * seconds).ceil().max(1.0)),
    }
}

fn windows(text: &mut String) -> &'static str {
    text.push_str(
        "steps:\n  # No signal told cycles in what was seen. When you know what begins one, put a cycle step here, like\n  \
         #   cycles: {kind: cycle, from: plc, start: \"pressure rises above 5\", end: \"pressure falls below 3\"}\n  \
         windows: {kind: window, from: plc, every: 10s}\n",
    );
    "plc, windows"
}

fn scalar(text: &str) -> String {
    if text.contains('"') && one_line(text) == text {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        in_quotes(text)
    }
}
