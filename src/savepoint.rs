//! `taktline checkpoint`: a checkpoint of a running pipeline, taken now and named.

use crate::client::{Method, ask};

/// Has the run at `url` take a checkpoint and name it; gives its number.
///
/// # Errors
/// No run answers there, it keeps no state, or the name can't be given.
pub fn take(url: &str, name: &str) -> anyhow::Result<u64> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    anyhow::ensure!(
        !name.is_empty() && name.chars().all(plain),
        "`{name}` can't be a name; use letters, digits, `.`, `_` and `-`"
    );
    let answer = ask(url, Method::Put, &format!("/api/savepoints/{name}"))?
        .body_mut()
        .read_to_string()?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    answer["checkpoint"]
        .as_u64()
        .ok_or_else(|| anyhow::anyhow!("{url} gave no checkpoint: {answer}"))
}
