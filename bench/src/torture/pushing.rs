//! A sender that pushes over HTTP, and sends a request again, under its key, until it is told 202.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::Value;
use ureq::Agent;

use crate::lines::Producer;

/// Sends for one machine.
pub struct Pusher {
    agent: Agent,
    url: String,
    machine: String,
    /// Rows of the next request.
    rows: Vec<String>,
    requests: u64,
}

/// Longer than the server lets a sender wait.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// How long a request is tried: while `taktline` is killed and started again and again, nobody listens for long.
const PATIENCE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(10);

impl Pusher {
    /// A sender to this port of loopback.
    pub fn to(port: u16, machine: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWERED_WITHIN));
        Pusher {
            agent: config.build().new_agent(),
            url: format!("http://127.0.0.1:{port}/streams/{machine}"),
            machine: machine.to_owned(),
            rows: Vec::new(),
            requests: 0,
        }
    }

    /// True when the rows are taken; false: try again.
    fn attempt(&self, key: &str, body: &str) -> anyhow::Result<bool> {
        let sent = self.agent.post(&self.url).header("Idempotency-Key", key).send(body);
        // Nobody listens, or who listened was killed.
        let Ok(mut answer) = sent else { return Ok(false) };
        let status = answer.status().as_u16();
        let Ok(said) = answer.body_mut().read_to_string() else {
            return Ok(false);
        };
        match status {
            202 => {
                let taken = serde_json::from_str::<Value>(&said)?["accepted"].as_u64();
                ensure!(
                    taken == Some(self.rows.len() as u64),
                    "of {} rows of {key} were taken: {said}",
                    self.rows.len()
                );
                Ok(true)
            }
            429 | 503 => Ok(false),
            _ => bail!("{key} was answered {status}: {said}"),
        }
    }
}

impl Producer for Pusher {
    fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        self.rows.push(String::from_utf8(payload.to_vec())?);
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let key = format!("{}-{}", self.machine, self.requests);
        let body = self.rows.join("\n");
        let started = Instant::now();
        while !self.attempt(&key, &body)? {
            ensure!(started.elapsed() < PATIENCE, "{key} was not taken in {PATIENCE:?}");
            std::thread::sleep(PAUSE);
        }
        self.rows.clear();
        self.requests += 1;
        Ok(())
    }
}
