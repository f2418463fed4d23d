//! The command line as a client of a running pipeline's API.

use anyhow::{Context, bail};
use ureq::Body;
use ureq::http::Response;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// To be told.
    Get,
    /// For something to be there.
    Put,
}

/// Asks the run at `url`; gives its answer when that is 200.
///
/// # Errors
/// No run answers there, or what it says is wrong with the question.
pub fn ask(url: &str, method: Method, path: &str) -> anyhow::Result<Response<Body>> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let address = format!("{}{path}", url.trim_end_matches('/'));
    let answer = match method {
        Method::Get => agent.get(&address).call(),
        Method::Put => agent.put(&address).send_empty(),
    };
    let mut response = answer.with_context(|| format!("{url}: is `taktline run` listening there?"))?;
    if response.status() == 200 {
        return Ok(response);
    }
    let problem: serde_json::Value = serde_json::from_str(&response.body_mut().read_to_string()?).unwrap_or_default();
    let text = |key: &str| problem[key].as_str().map(str::to_owned);
    let title = text("title").unwrap_or_else(|| format!("{url} answered {}", response.status()));
    match text("detail") {
        Some(detail) => bail!("{title}; {detail}"),
        None => bail!("{title}"),
    }
}
