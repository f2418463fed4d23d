//! A schema registry over its REST paths: schemas by their number, and new ones under a subject.
//!
//! A registry that is away is waited for and never costs a message: after [`PATIENCE`] the run ends with an error, and goes on where it
//! was once the registry is back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use taktline_engine::config::Problem;
use url::Url;

use super::avro::AvroSchema;
use super::config::RegistryConfig;
use crate::tls::TlsConfig;

/// How long a registry that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many numbers of schemas are remembered.
const REMEMBERED: usize = 10_000;
/// How many schemas one may refer to, over all levels.
const REFERENCES: usize = 64;

/// A registry. Cheap to ask: it remembers what it has heard.
pub(crate) struct Registry {
    url: Url,
    authorization: Option<String>,
    tls: Option<TlsConfig>,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    agent: Option<ureq::Agent>,
    schemas: HashMap<u32, Known>,
}

/// A schema, or why payloads that name it can't be read.
type Known = Result<Arc<AvroSchema>, String>;

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.url)
    }
}

/// What the registry says about a schema.
#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

/// The registry's own words when it refuses.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "error_code")]
    code: i64,
    message: Option<String>,
}

impl Registry {
    /// Checks the settings below `path`; asks nothing yet.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(config: &RegistryConfig, path: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let at = format!("{path}.url");
        let url = Url::parse(&config.url).map_err(|e| {
            problems
                .push(Problem::at(&at, format!("`{}` is no address: {e}", config.url)).hint("write http://host:8081"))
        });
        if let Ok(url) = &url {
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                let message = format!("`{}` is no address of a registry", config.url);
                problems.push(Problem::at(&at, message).hint("write http://host:8081"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                let message = "an address must hold no user and no password";
                problems.push(Problem::at(&at, message).hint("use the settings `user` and `password`"));
            }
        }
        if config.password.is_some() && config.user.is_none() {
            problems.push(Problem::at(
                &format!("{path}.password"),
                "there is a `password` but no `user`",
            ));
        }
        if let Some(tls) = &config.tls {
            problems.extend(tls.problems(&format!("{path}.tls")));
        }
        let authorization = config.user.as_ref().map(|user| {
            let pair = format!("{user}:{}", config.password.as_deref().unwrap_or_default());
            format!("Basic {}", base64(pair.as_bytes()))
        });
        match url {
            Ok(url) if problems.is_empty() => Ok(Registry {
                url,
                authorization,
                tls: config.tls.clone(),
                patience: PATIENCE,
                state: Mutex::default(),
            }),
            _ => Err(problems),
        }
    }

    /// The schema of a number. The inner error is about this schema only: the words for a dead letter.
    ///
    /// # Errors
    /// The registry was away for too long, or doesn't let us in: the run can't go on.
    pub(crate) fn schema(&self, id: u32) -> anyhow::Result<Known> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.schemas.get(&id) {
            return Ok(known.clone());
        }
        let known = self.fetch(&mut state, id)?;
        if state.schemas.len() >= REMEMBERED {
            state.schemas.clear();
        }
        state.schemas.insert(id, known.clone());
        Ok(known)
    }

    /// Registers a schema under a subject, or finds it there; gives its number.
    ///
    /// # Errors
    /// As [`Registry::schema`], and where the registry refuses the schema.
    pub(crate) fn register(&self, subject: &str, schema: &str) -> anyhow::Result<u32> {
        let body = json!({ "schema": schema }).to_string();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask(&mut state, &["subjects", subject, "versions"], Some(&body))? {
            Ok(answer) => {
                let registered: Registered = self.parse(&answer)?;
                Ok(registered.id)
            }
            Err(refusal) => bail!("the registry {} refused the schema of `{subject}`: {refusal}", self.url),
        }
    }

    fn fetch(&self, state: &mut State, id: u32) -> anyhow::Result<Known> {
        let answer = match self.ask(state, &["schemas", "ids", &id.to_string()], None)? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(format!("the registry has no schema {id}: {refusal}"))),
        };
        let answer: SchemaAnswer = self.parse(&answer)?;
        if let Some(other) = answer.schema_type.filter(|kind| kind != "AVRO") {
            return Ok(Err(format!(
                "schema {id} of the registry is {other} and not Avro; check `decode.format`"
            )));
        }
        let mut references = Vec::new();
        let mut open = answer.references;
        let mut seen = Vec::new();
        while let Some(Reference { subject, version }) = open.pop() {
            if seen.contains(&(subject.clone(), version)) {
                continue;
            }
            if seen.len() >= REFERENCES {
                return Ok(Err(format!(
                    "schema {id} of the registry refers to more than {REFERENCES} others"
                )));
            }
            match self.ask(state, &["subjects", &subject, "versions", &version.to_string()], None)? {
                Ok(answer) => {
                    let answer: SchemaAnswer = self.parse(&answer)?;
                    references.push(answer.schema);
                    open.extend(answer.references);
                }
                Err(refusal) => {
                    return Ok(Err(format!(
                        "schema {id} refers to `{subject}`, which the registry doesn't have: {refusal}"
                    )));
                }
            }
            seen.push((subject, version));
        }
        let schema = AvroSchema::parse(&answer.schema, &references);
        Ok(schema
            .map(Arc::new)
            .map_err(|e| format!("schema {id} of the registry: {e}")))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, answer: &str) -> anyhow::Result<T> {
        serde_json::from_str(answer).with_context(|| {
            format!(
                "{} does not answer as a schema registry; check `registry.url`",
                self.url
            )
        })
    }

    /// Asks until there is an answer. The inner error is the registry's own refusal.
    fn ask(&self, state: &mut State, path: &[&str], body: Option<&str>) -> anyhow::Result<Result<String, String>> {
        let agent = match &state.agent {
            Some(agent) => agent.clone(),
            None => {
                let agent = agent(self.tls.as_ref())?;
                state.agent = Some(agent.clone());
                agent
            }
        };
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        let mut said = None;
        loop {
            let reason = match self.ask_once(&agent, &url, body) {
                Ok((status, text)) if (200..300).contains(&status) => {
                    if said.is_some() {
                        tracing::info!("the schema registry {} is back", self.url);
                    }
                    return Ok(Ok(text));
                }
                Ok((401 | 403, _)) => bail!(
                    "the schema registry {} doesn't let us in; check `registry.user` and `registry.password`",
                    self.url
                ),
                Ok((status, text)) if status < 500 && status != 429 && status != 408 => {
                    let Ok(refusal) = serde_json::from_str::<Refusal>(&text) else {
                        bail!("{url} answered {status}, and not as a schema registry does; check `registry.url`");
                    };
                    return Ok(Err(format!(
                        "{} ({})",
                        refusal.message.unwrap_or_default(),
                        refusal.code
                    )));
                }
                Ok((status, _)) => format!("it answered {status}"),
                Err(error) => error.to_string(),
            };
            if started.elapsed() >= self.patience {
                bail!(
                    "the schema registry {} has been away for {} s: {reason}; messages wait for it, so start again when it is back",
                    self.url,
                    started.elapsed().as_secs()
                );
            }
            if said.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(10)) {
                tracing::warn!("the schema registry {} is away, waiting for it: {reason}", self.url);
                said = Some(Instant::now());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn ask_once(&self, agent: &ureq::Agent, url: &Url, body: Option<&str>) -> Result<(u16, String), ureq::Error> {
        const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
        let mut response = match body {
            None => {
                let request = agent.get(url.as_str()).header("Accept", MEDIA_TYPE);
                match &self.authorization {
                    Some(authorization) => request.header("Authorization", authorization).call()?,
                    None => request.call()?,
                }
            }
            Some(body) => {
                let request = agent
                    .post(url.as_str())
                    .header("Accept", MEDIA_TYPE)
                    .header("Content-Type", MEDIA_TYPE);
                match &self.authorization {
                    Some(authorization) => request.header("Authorization", authorization).send(body)?,
                    None => request.send(body)?,
                }
            }
        };
        let status = response.status().as_u16();
        Ok((status, response.body_mut().read_to_string()?))
    }
}

fn agent(tls: Option<&TlsConfig>) -> anyhow::Result<ureq::Agent> {
    use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, parse_pem};
    let read = |path: &std::path::Path| std::fs::read(path).with_context(|| path.display().to_string());
    let pem = |path: &std::path::Path| -> anyhow::Result<Vec<Certificate<'static>>> {
        let bytes = read(path)?;
        let found = parse_pem(&bytes).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let found: Vec<_> = found.collect();
        anyhow::ensure!(!found.is_empty(), "{}: there is no certificate in it", path.display());
        Ok(found)
    };
    let roots = match tls.and_then(|tls| tls.ca.as_ref()) {
        Some(ca) => pem(ca)?,
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            found
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect()
        }
    };
    let client = match tls {
        Some(TlsConfig {
            certificate: Some(certificate),
            key: Some(key),
            ..
        }) => {
            let private = PrivateKey::from_pem(&read(key)?).with_context(|| key.display().to_string())?;
            Some(ClientCert::new_with_certs(&pem(certificate)?, private))
        }
        _ => None,
    };
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Ok(ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .tls_config(tls)
        .build()
        .into())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, index| {
            bits << 8 | u32::from(group.get(index).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            out.push(match digit <= group.len() {
                true => DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char,
                false => '=',
            });
        }
    }
    out
}

#[cfg(test)]
#[path = "registry_tests.rs"]
pub(crate) mod tests;
