//! Sends a body until its target has taken or refused it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, parse_pem};
use ureq::{Agent, Body};

use crate::retry::{Backoff, Condition};
use crate::tls::TlsConfig;

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// The longest wait that a target may ask for.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(600);
/// How much of an answer is shown.
const SHOWN: usize = 200;

/// Where to send, and how.
#[derive(Clone)]
pub(super) struct Target {
    pub name: String,
    pub url: String,
    pub put: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub secret: Option<String>,
    pub timeout: Duration,
    pub give_up_after: Option<Duration>,
    pub tls: TlsConfig,
}

/// What became of a body.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Taken,
    /// Never to be sent again, and why.
    Refused(String),
}

/// A header as it may be sent.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` can't be the name of a header"))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| "the value can't stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Sends bodies, one after the other.
pub(super) struct Delivery {
    target: Target,
    /// The address without what may be secret in it.
    shown: String,
    agent: Agent,
    backoff: Backoff,
    condition: Condition,
}

/// What one attempt came to.
enum Attempt {
    Taken,
    Refused(String),
    /// To be tried again, after this long if the target said so.
    Again(String, Option<Duration>),
}

impl Delivery {
    pub(super) fn new(target: Target) -> anyhow::Result<Self> {
        let url = url::Url::parse(&target.url).context("`url`")?;
        let agent = agent(&target).context("`tls`")?;
        Ok(Delivery {
            // Chats have secrets in their paths.
            shown: format!("{}://{}", url.scheme(), url.authority()),
            agent,
            target,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_LAST),
            condition: Condition::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.target.name
    }

    /// Returns when the target has taken or refused the body, or the time to give up has come.
    pub(super) fn send(&mut self, id: &str, body: &[u8]) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        self.backoff.reset();
        loop {
            let (reason, asked) = match self.attempt(id, body)? {
                Attempt::Taken => {
                    if self.condition.mends() {
                        tracing::info!("{}: {} takes rows again (`url`)", self.target.name, self.shown);
                    }
                    return Ok(Outcome::Taken);
                }
                Attempt::Refused(reason) => return Ok(Outcome::Refused(reason)),
                Attempt::Again(reason, asked) => (reason, asked),
            };
            if let Some(limit) = self.target.give_up_after.filter(|limit| started.elapsed() >= *limit) {
                let limit_secs = limit.as_secs_f64();
                return Ok(Outcome::Refused(format!(
                    "{reason}, for {limit_secs} s (`give_up_after`)"
                )));
            }
            if self.condition.worsens(&reason) {
                tracing::warn!("{}: {} (`url`): {reason}; trying again", self.target.name, self.shown);
            }
            let wait = self
                .backoff
                .wait()
                .max(asked.unwrap_or_default().min(RETRY_AFTER_LIMIT));
            let left = self
                .target
                .give_up_after
                .map(|limit| limit.saturating_sub(started.elapsed()));
            std::thread::sleep(left.map_or(wait, |left| wait.min(left)));
        }
    }

    fn attempt(&self, id: &str, body: &[u8]) -> anyhow::Result<Attempt> {
        let mut request = match self.target.put {
            true => self.agent.put(&self.target.url),
            false => self.agent.post(&self.target.url),
        };
        request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", id);
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        if let Some(secret) = &self.target.secret {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let timestamp = since.as_secs().to_string();
            let signature = signature(secret, &timestamp, body)?;
            request = request
                .header("Taktline-Timestamp", timestamp)
                .header("Taktline-Signature", signature);
        }
        Ok(match request.send(body) {
            Ok(answer) => judge(answer),
            Err(error) => Attempt::Again(format!("not reached: {error}"), None),
        })
    }
}

fn agent(target: &Target) -> anyhow::Result<Agent> {
    let mut config = Agent::config_builder()
        .timeout_global(Some(target.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("taktline/", env!("CARGO_PKG_VERSION")));
    if target.url.starts_with("https") {
        config = config.tls_config(tls(&target.tls)?);
    }
    Ok(config.build().new_agent())
}

fn tls(config: &TlsConfig) -> anyhow::Result<ureq::tls::TlsConfig> {
    let roots = match &config.ca {
        Some(path) => certificates(path)?,
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            found
                .iter()
                .map(|found| Certificate::from_der(found).to_owned())
                .collect()
        }
    };
    anyhow::ensure!(
        !roots.is_empty(),
        "the system has no certificates to trust; install ca-certificates or name a file: tls: {{ca: ca.pem}}"
    );
    let mut tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots));
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        let key = PrivateKey::from_pem(&read(key)?).with_context(|| key.display().to_string())?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, key)));
    }
    Ok(tls.build())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(|| path.display().to_string())? {
            found.push(certificate);
        }
    }
    anyhow::ensure!(!found.is_empty(), "{}: there is no certificate in it", path.display());
    Ok(found)
}

fn judge(mut answer: Response<Body>) -> Attempt {
    let status = answer.status();
    let asked = answer.headers().get(header::RETRY_AFTER).and_then(retry_after);
    // Read on, so that the connection can be used again.
    let text = answer
        .body_mut()
        .with_config()
        .limit(64 << 10)
        .lossy_utf8(true)
        .read_to_string()
        .unwrap_or_default();
    if status.is_success() {
        return Attempt::Taken;
    }
    let text: String = text
        .trim()
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let said = if text.is_empty() {
        format!("answered {status}")
    } else {
        format!("answered {status}: {text}")
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Attempt::Again(format!("{said}; check `token`, `headers` and `secret`"), asked)
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Attempt::Again(format!("{said}; check `url` and `method`"), asked)
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Attempt::Again(said, asked)
        }
        status if status.is_client_error() => Attempt::Refused(said),
        status if status.is_redirection() => Attempt::Again(format!("{said}; it is elsewhere, check `url`"), asked),
        _ => Attempt::Again(said, asked),
    }
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(secs) = text.parse::<u32>() {
        return Some(Duration::from_secs(secs.into()));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let micros = at.as_microsecond() - jiff::Timestamp::now().as_microsecond();
    Some(Duration::from_micros(micros.max(0).unsigned_abs()))
}

/// `v1=` and the HMAC-SHA256 of the timestamp, a dot and the body.
fn signature(secret: &str, timestamp: &str, body: &[u8]) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).context("`secret`")?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(format!("v1={}", hexadecimal(&mac.finalize().into_bytes())))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // a String takes everything
            text
        })
}
