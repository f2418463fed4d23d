//! Which broker, and as whom.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use taktline_engine::config::Problem;

use crate::tls::TlsConfig;

/// A version of the protocol: `3.1.1` or `5`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1
    V311,
    /// MQTT 5
    #[default]
    V5,
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `5` is a number in YAML, `3.1.1` a text.
        match serde_json::Value::deserialize(deserializer)?
            .to_string()
            .trim_matches('"')
        {
            "3.1.1" => Ok(Version::V311),
            "5" | "5.0" => Ok(Version::V5),
            other => Err(serde::de::Error::custom(format!(
                "`{other}` is no known version; write 3.1.1 or 5"
            ))),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "MqttVersion".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["3.1.1", "5", 5]})
    }
}

/// Who a client says it is, as the settings of sources and sinks say it.
#[derive(Debug, Default)]
pub(crate) struct SignIn {
    pub(crate) version: Version,
    pub(crate) client_id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) tls: Option<TlsConfig>,
}

/// A broker and how to sign in to it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The address as it was typed; holds no password.
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) version: Version,
    /// As it was set; none if the broker should keep nothing for us.
    pub(crate) client_id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// None: the connection isn't secured.
    pub(crate) tls: Option<TlsConfig>,
}

impl Endpoint {
    /// # Errors
    /// What is wrong with the address, at `url`, or with who we are, at the setting.
    pub(crate) fn new(url: &str, sign_in: SignIn) -> Result<Self, Vec<Problem>> {
        let mut problems = sign_in.problems();
        let SignIn {
            version,
            client_id,
            user,
            password,
            tls,
        } = sign_in;
        match address(url) {
            Ok(Address { host, port, secure }) => {
                if tls.is_some() && !secure {
                    let message = "the address asks for no TLS";
                    problems.push(Problem::at("tls", message).hint("write mqtts://host:8883 as `url`"));
                }
                if !problems.is_empty() {
                    return Err(problems);
                }
                Ok(Endpoint {
                    url: url.to_owned(),
                    host,
                    port,
                    version,
                    client_id,
                    user,
                    password,
                    tls: secure.then(|| tls.unwrap_or_default()),
                })
            }
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }
}

impl SignIn {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.tls.as_ref().map_or_else(Vec::new, |tls| tls.problems("tls"));
        // MQTT 5 knows tokens, which stand alone; 3.1.1 knows only passwords of users.
        if self.password.is_some() && self.user.is_none() && self.version == Version::V311 {
            problems.push(Problem::at("password", "there is a `password` but no `user`"));
        }
        if self.client_id.as_deref() == Some("") {
            let hint = "leave it out for one made at random";
            problems.push(Problem::at("client_id", "must not be empty").hint(hint));
        }
        problems
    }
}

struct Address {
    host: String,
    port: u16,
    secure: bool,
}

fn address(url: &str) -> Result<Address, Problem> {
    let problem = |message: String| Problem::at("url", message).hint("write mqtt://host:1883, or mqtts://host:8883");
    let parsed = url::Url::parse(url).map_err(|e| problem(format!("`{url}` is no address: {e}")))?;
    let secure = match parsed.scheme() {
        "mqtt" | "tcp" => false,
        "mqtts" | "ssl" | "tls" => true,
        other => return Err(problem(format!("`{other}` is not MQTT"))),
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let message = "an address must hold no user and no password";
        return Err(Problem::at("url", message).hint("use the settings `user` and `password`"));
    }
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(problem(format!("`{url}` has something behind the port")));
    }
    let host = parsed
        .host_str()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    if host.is_empty() {
        return Err(problem(format!("`{url}` names no host")));
    }
    Ok(Address {
        host: host.to_owned(),
        port: parsed.port().unwrap_or(if secure { 8883 } else { 1883 }),
        secure,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |url: &str, expect: Result<(&str, u16, bool), &str>| match (
            Endpoint::new(url, SignIn::default()),
            expect,
        ) {
            (Ok(got), Ok(expect)) => {
                assert_eq!((got.host.as_str(), got.port, got.tls.is_some()), expect, "{url}");
            }
            (Err(problems), Err(part)) => {
                assert_eq!(problems[0].path, ["url"], "{url}");
                assert!(problems[0].message.contains(part), "{url}: {}", problems[0].message);
            }
            (got, _) => panic!("{url}: {got:?}"),
        };
        check("mqtt://broker:1884", Ok(("broker", 1884, false)));
        check("mqtt://broker", Ok(("broker", 1883, false)));
        check("mqtts://broker", Ok(("broker", 8883, true)));
        check("tls://broker:1", Ok(("broker", 1, true)));
        check("tcp://10.0.0.1:1/", Ok(("10.0.0.1", 1, false)));
        check("mqtt://[::1]:1883", Ok(("::1", 1883, false)));
        check("broker:1883", Err("not MQTT"));
        check("broker", Err("no address"));
        check("http://broker", Err("not MQTT"));
        check("mqtt://u:p@broker", Err("no password"));
        check("mqtt://broker/topic", Err("behind the port"));
        check("mqtt://:1883", Err(""));
    }

    #[test]
    fn sign_ins() {
        let check = |url: &str, sign_in: SignIn, expect: &[&str]| {
            let problems = Endpoint::new(url, sign_in).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{url}");
        };
        let token = |version| SignIn {
            version,
            password: Some("token".into()),
            ..SignIn::default()
        };
        check("mqtt://b", token(Version::V5), &[]);
        check("mqtt://b", token(Version::V311), &["password"]);
        let tls = || SignIn {
            tls: Some(TlsConfig::default()),
            ..SignIn::default()
        };
        check("mqtts://b", tls(), &[]);
        check("mqtt://b", tls(), &["tls"]);
        let half = SignIn {
            client_id: Some(String::new()),
            tls: Some(TlsConfig {
                key: Some("key.pem".into()),
                ..TlsConfig::default()
            }),
            ..SignIn::default()
        };
        check("http://b", half, &["tls.key", "client_id", "url"]);
    }

    #[test]
    fn versions() {
        let check = |json: &str, expect: Option<Version>| {
            assert_eq!(serde_json::from_str::<Version>(json).ok(), expect, "{json}");
        };
        check("5", Some(Version::V5));
        check("\"5\"", Some(Version::V5));
        check("\"3.1.1\"", Some(Version::V311));
        check("3.1", None);
        check("4", None);
    }
}
