//! The command line.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use taktline_connectors::stdout;
use taktline_engine::MemoryExceeded;
use taktline_engine::config::Override;
use taktline_engine::plan;

use crate::catalog::CATALOG;
use crate::load::{self, DATA, Wrong};
use crate::recorded::Backfill;
use crate::state::{StateArgs, make_room};
use crate::{cluster, demo, dry, init, run, savepoint, tap, verify};

/// Watches machines that repeat themselves: cycles, references, health, alerts, history.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A simulated press line, a broker, a pipeline and the page: nothing to install.
    Demo(demo::DemoArgs),
    /// Run a pipeline file.
    Run(RunArgs),
    /// Listen to a broker or look into a file, and write a pipeline file for what is there.
    Init(init::InitArgs),
    /// Check a pipeline file; exit code 78 when it is wrong.
    Validate {
        #[command(flatten)]
        pipeline: Pipeline,
        /// How problems are written.
        #[arg(long, default_value = "text")]
        format: TextOrJson,
    },
    /// Draw a pipeline file's graph with the columns of every edge.
    Graph {
        #[command(flatten)]
        pipeline: Pipeline,
        /// `text`, or `mermaid` as GitHub and editors draw it.
        #[arg(long, default_value = "text")]
        format: Drawing,
    },
    /// The JSON schema of pipeline files, for editors.
    Schema,
    /// The kinds of sources, steps and sinks.
    Kinds {
        /// How they are listed.
        #[arg(long, default_value = "text")]
        format: TextOrJson,
    },
    /// Run a pipeline file's own tests.
    Test {
        /// The pipeline file.
        file: PathBuf,
        /// How verdicts are written.
        #[arg(long, default_value = "text")]
        format: TextOrJson,
    },
    /// SQL over history.
    Sql(SqlArgs),
    /// Take a checkpoint of a run now and name it: a savepoint, for `run --from`.
    Checkpoint {
        /// Its name: letters, digits, `.`, `_` and `-`.
        name: String,
        /// Where the run listens.
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// One pipeline over several processes, on one machine or more.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Watch a running step's rows, one JSON object a line.
    Tap {
        /// A source or step.
        step: String,
        /// Where the run listens.
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        url: String,
    },
}

#[derive(Args)]
struct Pipeline {
    /// The pipeline file: YAML, TOML or JSON.
    file: PathBuf,
    /// Override a value of the file, like sources.plc.url=mqtt://host:1883.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<Override>,
}

impl Pipeline {
    fn open(&self, data: Option<&std::path::Path>) -> anyhow::Result<load::Pipeline> {
        load::Pipeline::open(&self.file, &self.overrides, data)
    }
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Where history is kept, in place of the `path` of the file's history sinks.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Worker threads. The result does not depend on it.
    #[arg(long, default_value_t = default_workers(), value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Stop when the input ends.
    #[arg(long)]
    until_end: bool,
    /// Where the API and the page listen [default: 127.0.0.1:8080; with --until-end: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Connect, decode 100 rows of each source, show them, and write nothing.
    #[arg(long, conflicts_with_all = ["until_end", "listen", "overwrite", "backfill"])]
    dry_run: bool,
    /// Remove the history and the state that are there, and begin anew.
    #[arg(long)]
    overwrite: bool,
    /// Run over recorded samples instead of the sources: over those of another data directory's history, or a CSV file with machine,
    /// signal, ts, value. Only history is written, so nobody is alarmed: what would have been?
    #[arg(long, value_name = "DIR|FILE", requires = "data")]
    backfill: Option<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
    /// `json` writes what the run did to stdout.
    #[arg(long, default_value = "text")]
    format: TextOrJson,
}

#[derive(Args)]
struct SqlArgs {
    /// The query.
    query: String,
    /// Where history is kept.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// How the rows are written.
    #[arg(long, default_value = "table")]
    format: taktline_queries::Format,
    /// Read a Parquet, CSV or NDJSON file as a table beside history's.
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = named_file)]
    tables: Vec<(String, PathBuf)>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextOrJson {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Drawing {
    Text,
    Mermaid,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err(format!("`{text}` is not of the form NAME=FILE, like orders=orders.csv")),
    }
}

fn default_workers() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(64) as u16)
}

/// Exit codes: 0, 1 (failed), 2 (usage; clap's), 78 (bad configuration).
pub(crate) const FAILED: u8 = 1;
pub(crate) const BAD_CONFIGURATION: u8 = 78;

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let _faults = taktline_engine::fault::arm();
    let filter = tracing_subscriber::EnvFilter::try_from_env("TAKTLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,taktline=info"));
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(stderr)
        .with_target(false)
        .init();
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) if error.is::<Wrong>() => {
            eprintln!("{error}");
            BAD_CONFIGURATION.into()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            // With this configuration another start would end in the same way.
            let code = if error.is::<MemoryExceeded>() {
                BAD_CONFIGURATION
            } else {
                FAILED
            };
            code.into()
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    // Not locked here: a run's own stdout sink needs it.
    let mut out = std::io::stdout();
    match command {
        Command::Demo(args) => demo::demo(&args)?,
        Command::Run(args) => start(args)?,
        Command::Init(args) => init::init(&args)?,
        Command::Validate { pipeline, format } => return validate(&pipeline, format),
        Command::Graph { pipeline, format } => {
            let plan = pipeline.open(None)?.plan()?;
            match format {
                Drawing::Text => write!(out, "{plan}")?,
                Drawing::Mermaid => write!(out, "{}", plan.mermaid())?,
            }
        }
        Command::Schema => writeln!(out, "{:#}", plan::schema(&CATALOG).to_value())?,
        Command::Kinds { format } => kinds(&mut out, format)?,
        Command::Test { file, format } => return test(&file, format),
        Command::Sql(args) => sql(&args)?,
        Command::Checkpoint { name, url } => {
            let checkpoint = savepoint::take(&url, &name)?;
            writeln!(out, "{name} is checkpoint {checkpoint}")?;
        }
        Command::Cluster(command) => return cluster::execute(&command),
        Command::Tap { step, url } => tap::tap(&url, &step, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn start(args: RunArgs) -> anyhow::Result<()> {
    let pipeline = args.pipeline.open(args.data.as_deref())?;
    if args.dry_run {
        let format = match args.format {
            TextOrJson::Text => stdout::Format::Table,
            TextOrJson::Json => stdout::Format::Json,
        };
        return dry::dry_run(&pipeline.plan()?, format);
    }
    let backfill = args.backfill.as_deref().map(Backfill::from).transpose()?;
    let plan = match &backfill {
        Some(backfill) => pipeline.backfill(&backfill.samples)?,
        None => pipeline.plan()?,
    };
    // Before anything old is removed: is there something to read?
    for source in &plan.sources {
        source
            .source
            .partitions()
            .with_context(|| format!("source {}", source.name))?;
    }
    let data = args.data.clone().or_else(|| pipeline.data_dirs().into_iter().next());
    if let (Some(data), false) = (&data, args.state.follows()) {
        make_room(data, args.overwrite)?;
    }
    let settings = run::Settings {
        workers: args.workers.into(),
        until_end: args.until_end || backfill.is_some(),
        listen: args.listen,
        data,
        state: args.state,
    };
    let summary = run::run(plan, &settings)?;
    if args.format == TextOrJson::Json {
        println!("{summary:#}");
    }
    Ok(())
}

fn validate(pipeline: &Pipeline, format: TextOrJson) -> anyhow::Result<ExitCode> {
    let wrong = pipeline
        .open(None)?
        .plan()
        .err()
        .map_or_else(Vec::new, |Wrong(found)| found);
    if format == TextOrJson::Json {
        println!("{}", serde_json::to_string_pretty(&wrong)?);
    } else {
        wrong.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
    }
    Ok(if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        BAD_CONFIGURATION.into()
    })
}

fn kinds(out: &mut impl Write, format: TextOrJson) -> anyhow::Result<()> {
    let sources = CATALOG.sources.iter().map(|kind| ("source", kind.name, kind.summary));
    let steps = CATALOG.steps.iter().map(|kind| ("step", kind.name, kind.summary));
    let sinks = CATALOG.sinks.iter().map(|kind| ("sink", kind.name, kind.summary));
    let all: Vec<_> = sources.chain(steps).chain(sinks).collect();
    if format == TextOrJson::Json {
        let all: Vec<_> = all
            .iter()
            .map(|(role, name, summary)| json!({"role": role, "name": name, "summary": summary}))
            .collect();
        return Ok(writeln!(out, "{:#}", json!(all))?);
    }
    for (role, name, summary) in all {
        writeln!(out, "{role:<7} {name:<10} {summary}")?;
    }
    Ok(())
}

fn test(file: &std::path::Path, format: TextOrJson) -> anyhow::Result<ExitCode> {
    let verdicts = verify::verify(file)?;
    if format == TextOrJson::Json {
        println!("{}", serde_json::to_string_pretty(&verdicts)?);
    } else {
        for verdict in &verdicts {
            println!(
                "{} {}",
                if verdict.failures.is_empty() {
                    "ok    "
                } else {
                    "FAILED"
                },
                verdict.name
            );
            verdict.failures.iter().for_each(|failure| println!("       {failure}"));
        }
    }
    anyhow::ensure!(!verdicts.is_empty(), "{} has no tests", file.display());
    let failed = verdicts.iter().any(|verdict| !verdict.failures.is_empty());
    Ok(if failed { FAILED.into() } else { ExitCode::SUCCESS })
}

fn sql(args: &SqlArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = Out { closed: false };
    let result = runtime.block_on(async {
        let context = taktline_queries::context(&args.data, &args.tables).await?;
        taktline_queries::sql(&context, &args.query, args.format, &mut out).await
    });
    // Whoever read our output has read enough.
    if out.closed { Ok(()) } else { result }
}

/// Stdout that remembers whether its reader has gone; libraries turn the error into a text.
struct Out {
    closed: bool,
}

impl Out {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
        self.closed |= result.as_ref().err().is_some_and(gone);
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = std::io::stdout().write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = std::io::stdout().flush();
        self.note(flushed)
    }
}
