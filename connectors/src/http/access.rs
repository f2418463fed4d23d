//! Who may write: tokens.

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::fault::Fault;

/// The tokens that open the door. None: it stands open.
pub(super) struct Access {
    digests: Vec<[u8; 32]>,
}

impl Access {
    pub(super) fn new<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Self {
        Access {
            digests: tokens.into_iter().map(digest).collect(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.digests.is_empty()
    }

    /// Lets in who shows a token: `Authorization: Bearer`, or as senders to InfluxDB show it, `Token`, the password of `Basic`, or `p` in the query.
    pub(super) fn check(&self, headers: &HeaderMap, query_password: Option<&str>) -> Result<(), Fault> {
        if self.is_open() {
            return Ok(());
        }
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(of_header).or_else(|| query_password.map(str::to_owned));
        let detail = match shown {
            Some(shown) if self.knows(&shown) => return Ok(()),
            Some(_) => "the token is not known here; check `token` of the source",
            None => "a token is needed: send `Authorization: Bearer TOKEN`",
        };
        Err(Fault::new(StatusCode::UNAUTHORIZED, detail))
    }

    /// Takes as long for a token that is nearly right as for any other.
    fn knows(&self, shown: &str) -> bool {
        let shown = digest(shown);
        let differs = |known: &[u8; 32]| known.iter().zip(&shown).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.digests
            .iter()
            .fold(false, |known, digest| known | (differs(digest) == 0))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn of_header(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        return Some(text.split_once(':')?.1.to_owned());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let access = Access::new(["geheim", "other"]);
        let check = |header: Option<&str>, query: Option<&str>, expect: bool| {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert("authorization", value.parse().unwrap());
            }
            assert_eq!(access.check(&headers, query).is_ok(), expect, "{header:?} {query:?}");
        };
        check(Some("Bearer geheim"), None, true);
        check(Some("Token other"), None, true);
        check(Some("bearer  geheim "), None, true);
        check(Some("Basic dXNlcjpnZWhlaW0="), None, true);
        check(None, Some("geheim"), true);
        check(Some("Basic dXNlcjpnZWhlaQ=="), None, false);
        check(Some("Basic !!"), None, false);
        check(Some("Bearer geheimx"), None, false);
        check(Some("Bearer"), None, false);
        check(None, None, false);
        assert!(Access::new([]).check(&HeaderMap::new(), None).is_ok());
    }
}
