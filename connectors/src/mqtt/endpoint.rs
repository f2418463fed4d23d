//! Which broker, and as whom.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use taktline_engine::config::Problem;

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
}

impl Endpoint {
    /// An endpoint without a sign-in.
    ///
    /// # Errors
    /// What is wrong with the address, at `url`.
    pub(crate) fn new(url: &str, version: Version) -> Result<Self, Problem> {
        let problem = |message: String| Problem::at("url", message).hint("write mqtt://host:1883");
        let parsed = url::Url::parse(url).map_err(|e| problem(format!("`{url}` is no address: {e}")))?;
        match parsed.scheme() {
            "mqtt" | "tcp" => {}
            "mqtts" | "ssl" | "tls" => return Err(problem("TLS isn't supported yet".into())),
            other => return Err(problem(format!("`{other}` is not MQTT"))),
        }
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
        let port = parsed.port().unwrap_or(1883);
        Ok(Endpoint {
            url: url.to_owned(),
            host: host.to_owned(),
            port,
            version,
            client_id: None,
            user: None,
            password: None,
        })
    }

    /// Adds who we are.
    ///
    /// # Errors
    /// A password without a user, an empty client id.
    pub(crate) fn sign_in(
        mut self,
        client_id: Option<String>,
        user: Option<String>,
        password: Option<String>,
    ) -> Result<Self, Problem> {
        if password.is_some() && user.is_none() {
            return Err(Problem::at("password", "there is a `password` but no `user`"));
        }
        if client_id.as_deref() == Some("") {
            return Err(Problem::at("client_id", "must not be empty").hint("leave it out for one made at random"));
        }
        (self.client_id, self.user, self.password) = (client_id, user, password);
        Ok(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |url: &str, expect: Result<(&str, u16), &str>| match (Endpoint::new(url, Version::V5), expect) {
            (Ok(got), Ok(expect)) => assert_eq!((got.host.as_str(), got.port), expect, "{url}"),
            (Err(problem), Err(part)) => {
                assert_eq!(problem.path, ["url"], "{url}");
                assert!(problem.message.contains(part), "{url}: {}", problem.message);
            }
            (got, _) => panic!("{url}: {got:?}"),
        };
        check("mqtt://broker:1884", Ok(("broker", 1884)));
        check("mqtt://broker", Ok(("broker", 1883)));
        check("tcp://10.0.0.1:1/", Ok(("10.0.0.1", 1)));
        check("mqtt://[::1]:1883", Ok(("::1", 1883)));
        check("broker:1883", Err("not MQTT"));
        check("broker", Err("no address"));
        check("http://broker", Err("not MQTT"));
        check("mqtts://broker", Err("TLS"));
        check("mqtt://u:p@broker", Err("no password"));
        check("mqtt://broker/topic", Err("behind the port"));
        check("mqtt://:1883", Err(""));
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
