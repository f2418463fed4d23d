//! `taktline tap`: the rows of a running step, one JSON object a line.

use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, bail};

/// Copies the rows of `step` from the run at `url` to `out` until the run ends or `out` closes.
///
/// # Errors
/// No run answers there, or it has no such step.
pub fn tap(url: &str, step: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("{}/api/tap/{step}", url.trim_end_matches('/'));
    let mut response = agent
        .get(&address)
        .call()
        .with_context(|| format!("{url}: is `taktline run` listening there?"))?;
    if response.status() != 200 {
        let problem: serde_json::Value =
            serde_json::from_str(&response.body_mut().read_to_string()?).unwrap_or_default();
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        bail!("{}; {}", text("title"), text("detail"));
    }
    let mut lines = BufReader::new(response.into_body().into_reader());
    let mut line = Vec::new();
    loop {
        line.clear();
        // The run ends without a farewell; a cut connection is its end.
        if lines.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return Ok(());
        }
        match out.write_all(&line).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
}
