//! Sinks besides history, and what they got: files, which have each message once; an MQTT topic, a hook and a mailbox, which have everything
//! at least once, under ids that stay.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::acknowledged::{self, Found, Sent};
use crate::broker::{Broker, Publisher, Subscriber};
use crate::delta;
use crate::history;
use crate::hook::Hook;
use crate::mail::MailServer;
use crate::verdict::Verdict;

/// Where rows go besides history.
pub struct Sinks {
    work: PathBuf,
    broker: Broker,
    copies: Subscriber,
    hook: Hook,
    mail: MailServer,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// The last message to the subscriber of the copies.
const END: &[u8] = b"the end";

impl Sinks {
    /// Starts the servers; files will be in `work`.
    ///
    /// # Errors
    /// One can't be started.
    pub fn start(work: &Path) -> anyhow::Result<Self> {
        let broker = Broker::start(work)?;
        Ok(Sinks {
            work: work.to_owned(),
            copies: Subscriber::connect(broker.port, "copies", "copies/#")?,
            broker,
            hook: Hook::start()?,
            mail: MailServer::start()?,
        })
    }

    /// The sections, for the samples of these sources, and for the steps `windows` and `high`.
    pub fn sections(&self, from: &str) -> String {
        let (work, mqtt, hook, mail) = (self.work.display(), self.broker.port, self.hook.port, self.mail.port);
        format!(
            r#"  lines: {{kind: file, from: [{from}], path: "{work}/lines", format: ndjson, rows: 300}}
  tables: {{kind: file, from: [{from}], path: "{work}/tables", format: parquet, every: 1s}}
  copies: {{kind: mqtt, from: [{from}], url: "mqtt://127.0.0.1:{mqtt}", topic: "copies/{{machine}}/{{signal}}"}}
  hook: {{kind: webhook, from: [windows, high], url: "http://127.0.0.1:{hook}/hook"}}
  mail: {{kind: email, from: high, server: "127.0.0.1:{mail}", security: none, sender: torture@example.com,
          to: ops@example.com, per_hour: 100000, text: "id {{alert_id}} {{state}}"}}
"#
        )
    }

    /// Counts what they got, after a run that has ended in good order.
    ///
    /// # Errors
    /// A file or history can't be read, or the copies don't end.
    pub fn count(&self, verdict: &mut Verdict, taktline: &Path, data: &Path, sent: &[Sent]) -> anyhow::Result<()> {
        for (place, ending) in [("lines", "ndjson"), ("tables", "parquet")] {
            let found = self.files(place, ending)?;
            let again = acknowledged::count(verdict, place, &found, sent);
            verdict.twice += again;
            verdict.notes.push(format!(
                "{} messages in {ending} files, {again} of them twice",
                found.len()
            ));
        }
        let found = self.copied()?;
        let again = acknowledged::count(verdict, "copies", &found, sent);
        verdict
            .notes
            .push(format!("{} messages published, {again} of them again", found.len()));

        let windows = history::rows(taktline, data, "SELECT machine, signal, start, count FROM windows")?;
        let alerts = history::rows(taktline, data, "SELECT alert_id, state FROM alerts")?;
        let requests = self.hook.requests();
        let hooked: HashSet<String> = requests.iter().map(|request| named(&request.body)).collect();
        let mails = self.mail.mails();
        let mailed: HashSet<&str> = mails.iter().flat_map(|mail| mail.lines()).collect();
        for row in windows.iter().chain(&alerts) {
            lost(verdict, "hook", row, hooked.contains(&named(row)));
        }
        for row in &alerts {
            lost(verdict, "mail", row, mailed.contains(named(row).as_str()));
        }
        let (mut keys, mut bodies): (HashMap<&str, String>, HashMap<String, &str>) = Default::default();
        for request in &requests {
            let name = named(&request.body);
            let known = keys.entry(&request.key).or_insert_with(|| name.clone()).clone();
            let key = *bodies.entry(name.clone()).or_insert(&request.key);
            if known != name || key != request.key {
                verdict.different += 1;
                verdict
                    .faults
                    .push(format!("hook: another key, or another row under one key: {request:?}"));
            }
        }
        verdict.rows += (requests.len() + mails.len()) as u64;
        verdict.notes.push(format!(
            "{} windows and {} alerts: {} requests with {} keys, {} mails",
            windows.len(),
            alerts.len(),
            requests.len(),
            keys.len(),
            mails.len()
        ));
        Ok(())
    }

    fn files(&self, folder: &str, ending: &str) -> anyhow::Result<Vec<Found>> {
        let folder = self.work.join(folder);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            // Hidden files are not for readers.
            if path.extension().is_none_or(|found| found != ending) {
                continue;
            }
            if ending == "parquet" {
                found.extend(delta::of_parquet(&path)?);
            } else {
                let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
                for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    found.push(Found::read(line)?);
                }
            }
        }
        Ok(found)
    }

    /// What the subscriber has got when the last message comes: the broker keeps their order.
    fn copied(&self) -> anyhow::Result<Vec<Found>> {
        let mut publisher = Publisher::connect(self.broker.port, "end")?;
        publisher.publish("copies/end", END)?;
        publisher.flush()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let mut payloads = self.copies.payloads();
            if payloads.last().is_some_and(|last| last == END) {
                payloads.pop();
                return payloads.iter().map(|payload| Found::read(payload)).collect();
            }
            ensure!(Instant::now() < until, "the copies don't end");
            std::thread::sleep(Duration::from_millis(5)); // between two looks
        }
    }
}

/// What tells an alert's or a window's row apart.
fn named(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    match row["alert_id"].as_str() {
        Some(id) => format!("id {id} {}", text("state")),
        None => format!(
            "{} {} {} {}",
            text("machine"),
            text("signal"),
            // Windows begin at whole seconds.
            text("start")
                .chars()
                .take("2026-01-01T00:00:00".len())
                .collect::<String>(),
            row["count"]
        ),
    }
}

fn lost(verdict: &mut Verdict, place: &str, row: &Value, found: bool) {
    if !found {
        verdict.lost += 1;
        verdict.faults.push(format!("{place}: not there: {row}"));
    }
}
