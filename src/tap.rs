//! `taktline tap`: the rows of a running step, one JSON object a line.

use std::io::{BufRead, BufReader, Write};

use crate::client::{Method, ask};

/// Copies the rows of `step` from the run at `url` to `out` until the run ends or `out` closes.
///
/// # Errors
/// No run answers there, or it has no such step.
pub fn tap(url: &str, step: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let response = ask(url, Method::Get, &format!("/api/tap/{step}"))?;
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
