//! The server: its routes, and the way of a body from the socket to the journal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::access::Access;
use super::body;
use super::catalogue::{Catalogue, Registered, Stream, StreamConfig, Unregistered};
use super::fault::{Answer, Dialect, Fault};
use super::keys::{Begun, Keys, Request as Keyed, Ticket};
use super::queue::{Closed, Push, Queue};
use super::rate::Rates;
use super::raw::Content;
use super::reads::{Came, Reads};
use super::verdicts::{Refused, Verdicts};
use crate::time::Unit;

/// The most bytes of a registration.
const REGISTRATION: usize = 1 << 20;
/// The longest idempotency key.
const KEY: usize = 256;
/// Bodies that may be read at the same time, in KiB.
pub(super) const BUDGET_KIB: usize = 64 << 10;

/// Everything that the routes know.
pub(super) struct App {
    pub access: Access,
    pub rates: Rates,
    pub catalogue: Catalogue,
    pub queue: Arc<Queue>,
    pub keys: Arc<Keys>,
    /// KiB of bodies that may still be read now.
    pub budget: Semaphore,
    pub max_body: usize,
    /// How long a body may take to come in.
    pub read_timeout: Duration,
    /// How long a sender waits until its rows are safe.
    pub timeout: Duration,
    /// How bodies become rows.
    pub reads: Arc<Reads>,
    /// Samples that were left out and that nobody has counted yet.
    pub left_out: Arc<AtomicU64>,
}

type Shared = State<Arc<App>>;
type Peer = ConnectInfo<super::connections::Peer>;

pub(super) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/streams", get(list))
        .route("/streams/{name}", post(push).put(register).get(show))
        .route("/write", post(write1))
        .route("/api/v2/write", post(write2))
        .route("/query", get(query).post(query))
        .route("/ping", get(|| async { StatusCode::NO_CONTENT }))
        .route("/health", get(health))
        .fallback(|| async {
            let detail =
                "there is nothing here; push rows with POST /streams/NAME, or line protocol to /write or /api/v2/write";
            Fault::new(StatusCode::NOT_FOUND, detail).respond(Dialect::Own)
        })
        .method_not_allowed_fallback(|| async {
            let detail = "push rows with POST, register a stream with PUT, look at it with GET";
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, detail).respond(Dialect::Own)
        })
        .with_state(app)
}

async fn push(State(app): Shared, ConnectInfo(peer): Peer, Path(name): Path<String>, request: Request) -> Response {
    answer(&app, peer.0, &name, request, Dialect::Own).await
}

async fn write1(State(app): Shared, ConnectInfo(peer): Peer, request: Request) -> Response {
    let database = parameter(&request, "db").unwrap_or_else(|| "influx".to_owned());
    answer(&app, peer.0, &database, request, Dialect::Influx1).await
}

async fn write2(State(app): Shared, ConnectInfo(peer): Peer, request: Request) -> Response {
    let bucket = parameter(&request, "bucket").unwrap_or_else(|| "influx".to_owned());
    answer(&app, peer.0, &bucket, request, Dialect::Influx2).await
}

async fn answer(app: &App, peer: SocketAddr, name: &str, request: Request, dialect: Dialect) -> Response {
    match app.push(peer, name, request, dialect).await {
        Ok(answer) => answer.respond(dialect),
        Err(fault) => fault.respond(dialect),
    }
}

async fn register(State(app): Shared, ConnectInfo(peer): Peer, Path(name): Path<String>, request: Request) -> Response {
    let registered = async {
        let (parts, body) = request.into_parts();
        app.admit(peer.0, &parts)?;
        let body = read_body(body, REGISTRATION, app.read_timeout).await?;
        let config: StreamConfig = match body.trim_ascii() {
            b"" => StreamConfig::default(),
            json => serde_json::from_slice(json).map_err(|e| {
                Fault::bad(format!(
                    "this is no stream: {e}; write {{\"machine\": \"press-1\", \"signals\": {{\"temperature\": {{\"unit\": \"degC\"}}}}}}"
                ))
            })?,
        };
        app.catalogue.register(&name, &config).map_err(|error| match error {
            Unregistered::Wrong(message) => Fault::new(StatusCode::UNPROCESSABLE_ENTITY, message),
            Unregistered::Declared => Fault::new(
                StatusCode::CONFLICT,
                format!("the pipeline file declares the stream `{name}` otherwise; change it there, in `streams`"),
            ),
            Unregistered::Full => Fault::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "there are too many streams; declare those that matter in `streams`, and restart",
            ),
        })
    };
    match registered.await {
        Ok(registered) => {
            let status = match registered {
                Registered::New => StatusCode::CREATED,
                Registered::Again => StatusCode::OK,
            };
            (status, axum::Json(json!(app.catalogue.shown(Some(&name)).first()))).into_response()
        }
        Err(fault) => fault.respond(Dialect::Own),
    }
}

async fn list(State(app): Shared, ConnectInfo(peer): Peer, request: Request) -> Response {
    match app.admit(peer.0, &request.into_parts().0) {
        Ok(()) => axum::Json(json!({"streams": app.catalogue.shown(None)})).into_response(),
        Err(fault) => fault.respond(Dialect::Own),
    }
}

async fn show(State(app): Shared, ConnectInfo(peer): Peer, Path(name): Path<String>, request: Request) -> Response {
    let found = app.admit(peer.0, &request.into_parts().0).and_then(|()| {
        let shown = app.catalogue.shown(Some(&name)).pop();
        shown.ok_or_else(|| {
            Fault::new(
                StatusCode::NOT_FOUND,
                format!("nobody has registered or used a stream `{name}`"),
            )
        })
    });
    match found {
        Ok(shown) => axum::Json(shown).into_response(),
        Err(fault) => fault.respond(Dialect::Own),
    }
}

/// Senders to InfluxDB 1 create their database before they write.
async fn query(State(app): Shared, ConnectInfo(peer): Peer, request: Request) -> Response {
    let asked = parameter(&request, "q");
    let (parts, body) = request.into_parts();
    let query = async {
        app.admit(peer.0, &parts)?;
        match asked {
            Some(asked) => Ok::<String, Fault>(asked),
            None => {
                let body = read_body(body, REGISTRATION, app.read_timeout).await?;
                let found = url::form_urlencoded::parse(&body).find(|(name, _)| name == "q");
                Ok(found.map(|(_, value)| value.into_owned()).unwrap_or_default())
            }
        }
    };
    match query.await {
        Ok(query) if query.trim().to_ascii_uppercase().starts_with("CREATE DATABASE") => {
            axum::Json(json!({"results": [{"statement_id": 0}]})).into_response()
        }
        Ok(_) => Fault::bad("this is no database: rows are taken here, and asked for in the history")
            .respond(Dialect::Influx1),
        Err(fault) => fault.respond(Dialect::Influx1),
    }
}

async fn health(State(app): Shared) -> Response {
    let (status, message) = match app.queue.closed() {
        None => (StatusCode::OK, "rows are taken"),
        Some(Closed::Full) => (StatusCode::OK, "the queue is full; senders are told to wait"),
        Some(Closed::Stopping) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let word = if status == StatusCode::OK { "pass" } else { "fail" };
    (
        status,
        axum::Json(json!({"name": "taktline", "status": word, "message": message})),
    )
        .into_response()
}

/// A value of the query.
fn parameter(request: &Request, name: &str) -> Option<String> {
    parameter_of(request.uri().query(), name)
}

fn parameter_of(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
    let found = pairs.find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.into_owned())
}

async fn read_body(body: Body, limit: usize, at_most: Duration) -> Result<Bytes, Fault> {
    match tokio::time::timeout(at_most, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(body::too_large(limit)),
        Ok(Err(error)) => Err(Fault::bad(format!("the body was cut: {error}"))),
        Err(_) => Err(Fault::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the body did not come within {} ms (`read_timeout`)",
                at_most.as_millis()
            ),
        )),
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause = Some(error as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn closed(closed: Closed) -> Fault {
    match closed {
        Closed::Full => Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rows come faster than they can be stored; send them again later",
        )
        .later(1),
        Closed::Stopping => Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the run is stopping; send the rows again later",
        )
        .later(5),
    }
}

impl App {
    /// Lets a request in by its token and its client's rate.
    fn admit(&self, peer: SocketAddr, parts: &Parts) -> Result<(), Fault> {
        let wait = self.rates.take(peer.ip(), Instant::now());
        wait.map_err(|secs| {
            let detail = "more requests than `rate` allows a client; put more rows into one";
            Fault::new(StatusCode::TOO_MANY_REQUESTS, detail).later(secs)
        })?;
        self.access
            .check(&parts.headers, parameter_of(parts.uri.query(), "p").as_deref())
    }

    /// A body's way: admitted, read, judged row by row, queued; and then it waits until its rows are safe.
    async fn push(&self, peer: SocketAddr, name: &str, request: Request, dialect: Dialect) -> Result<Answer, Fault> {
        let (parts, body) = request.into_parts();
        self.admit(peer, &parts)?;
        let find = self.catalogue.find(name);
        let stream = find.map_err(|detail| Fault::new(StatusCode::NOT_FOUND, detail))?;
        if let Some(why) = self.queue.closed() {
            return Err(closed(why));
        }
        let claimed = length(&parts.headers);
        if claimed.is_some_and(|length| length > self.max_body) {
            return Err(body::too_large(self.max_body));
        }
        let kib = claimed.unwrap_or(self.max_body).div_ceil(1024).clamp(1, BUDGET_KIB);
        let room = self.budget.try_acquire_many(kib as u32);
        let room = room.map_err(|_| closed(Closed::Full))?;
        let bytes = read_body(body, self.max_body, self.read_timeout).await?;
        let (answer, safe) = self.queue_rows(&stream, &parts, &bytes, dialect)?;
        drop((bytes, room));
        self.wait(safe).await?;
        Ok(answer)
    }

    /// Judges the rows and queues them. What it gives turns true when they are safe.
    fn queue_rows(
        &self,
        stream: &Arc<Stream>,
        parts: &Parts,
        bytes: &[u8],
        dialect: Dialect,
    ) -> Result<(Answer, watch::Receiver<bool>), Fault> {
        let key = idempotency_key(&parts.headers)?;
        let received = now();
        let mut verdicts = Verdicts::new(stream, self.reads.signals(), received);
        self.judge(parts, bytes, dialect, &mut verdicts)?;
        let (refused, refusals) = verdicts.refused();
        let left_out = verdicts.left_out;
        let answer = Answer::of(verdicts.rows.len(), left_out, (&refused, refusals));
        let internal = |error: anyhow::Error| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let content = |verdicts: &mut Verdicts<'_>, refused: Vec<Refused>, request| -> Result<Content, Fault> {
            Ok(Content {
                stream: stream.name.as_str().into(),
                received,
                samples: verdicts.rows.finish().map_err(internal)?,
                refused,
                request,
            })
        };
        let count = |answer: &Answer| {
            self.catalogue.count(stream, answer.accepted, answer.refused, received);
            self.left_out.fetch_add(left_out, Ordering::Relaxed);
        };
        if answer.accepted == 0 {
            if answer.refused == 0 && left_out == 0 {
                return Err(Fault::bad("the body has no row"));
            }
            count(&answer);
            if answer.refused == 0 {
                return Ok((answer, watch::channel(true).1)); // there is nothing to keep safe
            }
            // The dead letters are for people; the sender need not wait for them.
            let content = content(&mut verdicts, refused, None)?;
            let _ = self.queue.offer(Push { content, ticket: None });
            return Err(Fault::nothing_good(answer));
        }
        let request = key.map(|key| {
            Arc::new(Keyed {
                key: format!("{}\n{key}", stream.name),
                body: hexadecimal(&Sha256::digest(bytes)),
                answer: answer.clone(),
            })
        });
        let ticket = match &request {
            None => Ticket::new(),
            Some(request) => match self.keys.begin(request) {
                Begun::New(ticket) => ticket,
                Begun::Again(request, safe) => return Ok((request.answer.clone(), safe)),
                Begun::Other => {
                    let detail = "this Idempotency-Key came before with another body; give each body a key of its own";
                    return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
                }
            },
        };
        let safe = ticket.watch();
        let content = content(&mut verdicts, refused, request)?;
        let ticket = Some(ticket);
        self.queue.offer(Push { content, ticket }).map_err(closed)?;
        count(&answer);
        Ok((answer, safe))
    }

    fn judge(&self, parts: &Parts, bytes: &[u8], dialect: Dialect, verdicts: &mut Verdicts<'_>) -> Result<(), Fault> {
        let body = body::unpack(&parts.headers, bytes, self.max_body)?;
        if body.trim_ascii().is_empty() {
            return Err(Fault::bad(
                "the body is empty; send rows, like {\"temperature\": 21.5} or press-1 temperature=21.5",
            ));
        }
        let said = parameter_of(parts.uri.query(), "precision");
        let came = Came {
            headers: &parts.headers,
            body: &body,
            unit: said.map(|text| unit(&text)).transpose().map_err(Fault::bad)?,
            as_lines: dialect != Dialect::Own,
        };
        self.reads.judge(&came, verdicts)
    }

    async fn wait(&self, mut safe: watch::Receiver<bool>) -> Result<(), Fault> {
        let again = "send them again, with the same Idempotency-Key so that they are stored once";
        let waited = tokio::time::timeout(self.timeout, safe.wait_for(|safe| *safe)).await;
        let detail = match waited {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => format!("the run ended before the rows were safe; {again}"),
            Err(_) => format!(
                "the rows were not safe within {} ms (`timeout`); {again}",
                self.timeout.as_millis()
            ),
        };
        Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, detail).later(1))
    }
}

/// A unit as `precision` names it, also with the letters of InfluxDB 1.
fn unit(text: &str) -> Result<Unit, String> {
    match text {
        "ns" | "n" => Ok(Unit::Ns),
        "us" | "u" | "µ" | "µs" => Ok(Unit::Us),
        "ms" => Ok(Unit::Ms),
        "s" => Ok(Unit::S),
        _ => Err(format!("`precision={text}` is not known; write ns, us, ms or s")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY);
    let key = key.ok_or_else(|| Fault::bad(format!("an Idempotency-Key has 1 to {KEY} visible characters")))?;
    Ok(Some(key.to_owned()))
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

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
