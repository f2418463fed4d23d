//! The `email` sink: rows as mails, several at once as a digest, at least once.
//!
//! Rows are mailed when their checkpoint is real. What can't be mailed yet (the server is away, or more mails than `per_hour`) is
//! held, counts as staged with every checkpoint until it is sent, and goes out as one digest: a flood of alarms is a few mails, and
//! a mail server that is away stops nothing. `notice`: what is held; `post`: the way to the server.

mod notice;
mod post;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::RecordBatch;
use lettre::message::Mailbox;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan};

use crate::cells::{Cells, RowTemplate, flat, flat_schema, flattened, showable};
use crate::durable;
use crate::retry::{Backoff, Condition};
use crate::tls::TlsConfig;
use notice::{Budget, Notice, Waiting};
use post::Post;

/// The `email` sink.
pub const KIND: SinkKind = SinkKind {
    name: "email",
    summary: "sends rows as mails, many at once as a digest",
    schema: || schemars::schema_for!(EmailConfig),
    takes_refused: false,
    build,
};

/// Sends rows as mails, at least once.
///
/// The rows of a checkpoint are one mail: of one row its subject and text, of several a digest with the texts of the first hundred. No more mails
/// than `per_hour` go out; what comes above that waits and is one digest. While the server is away or refuses, rows wait in the checkpoints
/// and go out later, also after a restart; nothing else waits for them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// The mail server: `mail.example.com` or `mail.example.com:587`. The port is by default that of `security`: 587, 465 or 25
    pub server: String,
    /// How the connection is secured: `starttls` (default), `tls` from the first byte, or `none`
    #[serde(default)]
    pub security: Security,
    /// Which servers to trust, and our own certificate
    pub tls: Option<TlsConfig>,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// Who the mails are from: `taktline@example.com` or `Taktline <taktline@example.com>`
    pub sender: String,
    /// Who gets them, an address or a list
    pub to: OneOrMany,
    /// Subject, with columns in braces. Default for alerts `{state}: {machine}: {message}`
    pub subject: Option<String>,
    /// Text, with columns in braces. Default: all columns, one on a line
    pub text: Option<String>,
    /// The most mails in an hour; more rows wait for the next one. Default 20
    #[schemars(range(min = 1))]
    pub per_hour: Option<u32>,
    /// How long the server may take to answer. Default 10s
    pub timeout: Option<Interval>,
}

/// How the connection is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Begins plain and must turn to TLS
    #[default]
    Starttls,
    /// TLS from the first byte
    Tls,
    /// Plain
    None,
}

/// An address or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One
    One(String),
    /// Several
    Many(Vec<String>),
}

const TIMEOUT: Interval = Interval::from_micros(10_000_000);
const PER_HOUR: u32 = 20;
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_secs(300);

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: EmailConfig = section.parse()?;
    let mut problems = Vec::new();
    let address = |path: &str, text: &str, problems: &mut Vec<Problem>| {
        let parsed = text.parse::<Mailbox>();
        parsed
            .map_err(|e| {
                let message = format!("`{text}` is no mail address: {e}");
                problems.push(Problem::at(path, message).hint("write somebody@example.com"));
            })
            .ok()
    };
    let sender = address("sender", &config.sender, &mut problems);
    let to = match &config.to {
        OneOrMany::One(text) => address("to", text, &mut problems).into_iter().collect(),
        OneOrMany::Many(texts) => {
            if texts.is_empty() {
                problems.push(Problem::at("to", "nobody gets the mails"));
            }
            let found = texts.iter().filter_map(|text| address("to", text, &mut problems));
            found.collect::<Vec<Mailbox>>()
        }
    };
    let (host, port) = match config.server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()),
        None => (
            config.server.as_str(),
            Some(match config.security {
                Security::Starttls => 587,
                Security::Tls => 465,
                Security::None => 25,
            }),
        ),
    };
    if host.is_empty() || host.contains('/') || port.is_none_or(|port| port == 0) {
        let message = format!("`{}` is no server", config.server);
        problems.push(Problem::at("server", message).hint("write mail.example.com or mail.example.com:587"));
    }
    match (&config.user, &config.password) {
        (None, Some(_)) => problems.push(Problem::at("password", "there is a `password` but no `user`")),
        (Some(_), None) => problems.push(Problem::at("user", "there is a `user` but no `password`")),
        (Some(_), Some(_)) if config.security == Security::None && !is_local(host) => {
            let message = "the password would go over the network for everybody to read";
            problems.push(Problem::at("security", message).hint("write security: starttls, or tls"));
        }
        _ => {}
    }
    if config.per_hour == Some(0) {
        problems.push(Problem::at("per_hour", "must be at least 1"));
    }
    let tls = config.tls.unwrap_or_default();
    problems.extend(tls.problems("tls"));
    let mut mailed = Vec::new();
    for input in inputs {
        let subject = config.subject.clone().unwrap_or_else(|| default_subject(input));
        let subject = RowTemplate::parse("subject", &subject, input);
        let text = RowTemplate::parse(
            "text",
            &config.text.clone().unwrap_or_else(|| default_text(input)),
            input,
        );
        match (subject, text) {
            (Ok(subject), Ok(text)) => mailed.push(Mailed {
                flat: flat(input).cloned(),
                subject,
                text,
            }),
            (subject, text) => problems.extend(subject.err().into_iter().chain(text.err())),
        }
    }
    let (Some(sender), Some(port), true) = (sender, port, problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Box::new(EmailPlan {
        name: section.name.clone(),
        post: Post {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            security: config.security,
            tls,
            sign_in: config.user.zip(config.password),
            sender,
            to,
            timeout: Duration::from_micros(config.timeout.unwrap_or(TIMEOUT).micros().unsigned_abs()),
        },
        per_hour: config.per_hour.unwrap_or(PER_HOUR),
        inputs: mailed,
    }))
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn columns(input: &Input) -> Vec<&str> {
    let schema = flat_schema(input);
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

fn default_subject(input: &Input) -> String {
    let columns = columns(input);
    let has = |name: &str| columns.contains(&name);
    if has("state") && has("machine") && has("message") {
        "{state}: {machine}: {message}".into()
    } else if has("machine") {
        format!("{}: {{machine}}", input.name)
    } else {
        input.name.clone()
    }
}

fn default_text(input: &Input) -> String {
    columns(input)
        .iter()
        .map(|name| format!("{name}: {{{name}}}\n"))
        .collect()
}

struct EmailPlan {
    name: String,
    post: Post,
    per_hour: u32,
    inputs: Vec<Mailed>,
}

/// How the rows of an input are mailed.
#[derive(Clone)]
struct Mailed {
    flat: Option<Published>,
    subject: RowTemplate,
    text: RowTemplate,
}

impl SinkPlan for EmailPlan {
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        self.post.check()?;
        Ok(Box::new(EmailSink {
            name: self.name.clone(),
            post: self.post.clone(),
            inputs: self.inputs.clone(),
            mark: opening.folder.as_ref().map(|folder| folder.join("mailed")),
            fresh: Waiting::default(),
            held: Waiting::default(),
            published: 0,
            budget: Budget::new(self.per_hour, Instant::now()),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_LAST),
            not_before: None,
            condition: Condition::default(),
        }))
    }
}

struct EmailSink {
    name: String,
    post: Post,
    inputs: Vec<Mailed>,
    /// Says up to which checkpoint everything was mailed. None: the run keeps no state.
    mark: Option<PathBuf>,
    /// Rows since the last stage.
    fresh: Waiting,
    /// Rows of checkpoints that are real, and not mailed yet.
    held: Waiting,
    /// The checkpoint that `held` belongs to.
    published: u64,
    budget: Budget,
    backoff: Backoff,
    not_before: Option<Instant>,
    condition: Condition,
}

impl Sink for EmailSink {
    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let mailed = self.mark.as_deref().map(read_mark).transpose()?.flatten();
        match mailed {
            Some(mailed) if checkpoint <= mailed => {
                self.published = checkpoint;
                if checkpoint < mailed {
                    self.note()?; // the numbers after it will be used again
                }
                Ok(())
            }
            _ => self.publish(checkpoint, staged),
        }
    }

    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        let mailed = self
            .inputs
            .get(input)
            .ok_or_else(|| anyhow::anyhow!("there is no input {input}"))?;
        let batch = &*flattened(mailed.flat.as_ref(), batch)?;
        let batch = showable(batch)?;
        let cells = Cells::of(&batch);
        for row in 0..batch.num_rows() {
            self.fresh.push(|| Notice {
                subject: mailed.subject.render(&cells, row),
                text: mailed.text.render(&cells, row),
            });
        }
        Ok(())
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        let mut staged = self.held.clone();
        staged.append(std::mem::take(&mut self.fresh));
        Ok(Staged(serde_json::to_value(staged)?))
    }

    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let mut held = Waiting::default();
        // A kind of sink that stages nothing may have had this name before.
        for staged in staged.iter().filter(|staged| !staged.0.is_null()) {
            held.append(
                serde_json::from_value(staged.0.clone())
                    .context("another kind of sink staged under this name; give this one another name")?,
            );
        }
        (self.held, self.published) = (held, checkpoint);
        if self.held.count == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if self.not_before.is_some_and(|at| now < at) || !self.budget.has_one(now) {
            return Ok(());
        }
        self.mail(now)
    }
}

impl EmailSink {
    /// Tries once to mail what is held.
    fn mail(&mut self, now: Instant) -> anyhow::Result<()> {
        match self.post.send(&self.held, &self.name) {
            Ok(()) => {
                if self.condition.mends() {
                    tracing::info!("{}: {} takes mails again (`server`)", self.name, self.post.place());
                }
                self.budget.take(now);
                self.backoff.reset();
                self.not_before = None;
                self.held = Waiting::default();
                self.note()
            }
            Err(reason) => {
                if self.condition.worsens(&reason) {
                    tracing::warn!(
                        "{}: {} (`server`): {reason}; {} rows wait, trying again",
                        self.name,
                        self.post.place(),
                        self.held.count
                    );
                }
                self.not_before = Some(now + self.backoff.wait());
                Ok(())
            }
        }
    }

    /// Notes that everything up to the last checkpoint was mailed, so that a restart doesn't mail it again.
    fn note(&self) -> anyhow::Result<()> {
        let Some(mark) = &self.mark else { return Ok(()) };
        durable::replace(mark, format!("{}\n", self.published).as_bytes()).with_context(|| mark.display().to_string())
    }
}

impl Drop for EmailSink {
    /// What waits for the next hour's mails goes out now: there may be no next run.
    fn drop(&mut self) {
        if self.held.count == 0 {
            return;
        }
        let count = self.held.count;
        if let Err(error) = self.mail(Instant::now()) {
            tracing::warn!("{}: {error:#}; the next run will mail {count} rows again", self.name);
        }
        if self.held.count > 0 && self.mark.is_none() {
            tracing::error!(
                "{}: {count} rows were not mailed and are lost: the run keeps no state",
                self.name
            );
        } else if self.held.count > 0 {
            tracing::warn!("{}: {count} rows were not mailed; the next run does it", self.name);
        }
    }
}

fn read_mark(path: &Path) -> anyhow::Result<Option<u64>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let input = Input {
            name: "plc".into(),
            table: taktline_engine::table::samples(),
            extends: Vec::new(),
        };
        let check = |yaml: &str, expect: &[&str]| {
            let section = Section::from_yaml("mail", yaml);
            let problems = build(&section, std::slice::from_ref(&input)).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}: {problems:?}");
        };
        check("{server: mail, sender: a@b.c, to: d@e.f}", &[]);
        check(
            "{server: 'mail:25', security: none, sender: 'A <a@b.c>', to: [d@e.f, 'G <g@h.i>'], subject: '{machine}', text: '{ts} {value}', \
             per_hour: 5, timeout: 3s}",
            &[],
        );
        check(
            "{server: mail, security: tls, user: u, password: p, sender: a@b.c, to: d@e.f}",
            &[],
        );
        check(
            "{server: '127.0.0.1:25', security: none, user: u, password: p, sender: a@b.c, to: d@e.f}",
            &[],
        );
        check(
            "{server: mail, security: none, user: u, password: p, sender: a@b.c, to: d@e.f}",
            &["security"],
        );
        check(
            "{server: 'smtp://mail', sender: a, to: [b, d@e.f]}",
            &["sender", "to", "server"],
        );
        check("{server: 'mail:x', sender: a@b.c, to: []}", &["to", "server"]);
        check("{server: mail, user: u, sender: a@b.c, to: d@e.f}", &["user"]);
        check(
            "{server: mail, password: u, sender: a@b.c, to: d@e.f, per_hour: 0}",
            &["password", "per_hour"],
        );
        check(
            "{server: mail, sender: a@b.c, to: d@e.f, subject: '{x}', text: '{'}",
            &["subject", "text"],
        );
        check("{server: mail, sender: a@b.c, to: d@e.f, tls: {key: k}}", &["tls.key"]);
    }
}
