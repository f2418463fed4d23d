//! The HTTP API of a run: `/health`, `/metrics`, `/api/...` and the page at `/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};
use taktline_engine::Run;
use taktline_engine::config::did_you_mean;
use taktline_engine::plan::{Edge, Plan};

use crate::board::Board;
use crate::{live, page, rows};

/// The API at work.
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Shared {
    run: Arc<Run>,
    board: Arc<Board>,
}

impl Api {
    /// Serves `run` at `listen` from threads of its own until dropped.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub fn serve(run: &Arc<Run>, listen: SocketAddr) -> anyhow::Result<Self> {
        let board = Board::follow(run)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(listen))
            .with_context(|| format!("{listen}: choose another address with --listen"))?;
        let address = listener.local_addr()?;
        let app = Router::new()
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .route("/api/pipeline", get(pipeline))
            .route("/api/machines", get(machines))
            .route("/api/alerts", get(alerts))
            .route("/api/tap/{edge}", get(tap))
            .route("/api/savepoints/{name}", put(savepoint))
            .route("/api/live", get(socket))
            .fallback(page::page)
            .with_state(Shared {
                run: Arc::clone(run),
                board,
            });
        runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!("the API ended: {error}");
            }
        });
        Ok(Api { address, runtime })
    }

    /// Ends it; open connections are closed.
    pub fn close(self) {
        self.runtime.shutdown_background();
    }
}

async fn health(State(shared): State<Shared>) -> Json<Value> {
    let status = if shared.run.stopping() { "stopping" } else { "running" };
    Json(json!({"status": status, "pipeline": shared.run.plan().name}))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.run.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), None),
    }
}

async fn pipeline(State(shared): State<Shared>) -> Json<Value> {
    Json(describe(shared.run.plan()))
}

async fn machines(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.board.machines())
}

async fn alerts(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.board.alerts())
}

/// Takes a checkpoint now and names it.
async fn savepoint(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let run = shared.run;
    match tokio::task::spawn_blocking(move || run.savepoint(&name)).await {
        Ok(Ok(checkpoint)) => Json(json!({"checkpoint": checkpoint})).into_response(),
        Ok(Err(error)) => problem(StatusCode::CONFLICT, &format!("{error:#}"), None),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), None),
    }
}

async fn socket(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    let mut pipeline = describe(shared.run.plan());
    pipeline["type"] = "pipeline".into();
    upgrade.on_upgrade(|socket| live::serve(socket, pipeline, shared.board))
}

/// The rows of an edge as they come, one JSON object a line.
async fn tap(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let plan = shared.run.plan();
    let Some(edge) = plan.edge(&name) else {
        let known = plan
            .sources
            .iter()
            .map(|s| s.name.as_str())
            .chain(plan.steps.iter().map(|s| s.name.as_str()));
        let hint = did_you_mean(&name, known);
        return problem(
            StatusCode::NOT_FOUND,
            &format!("there is no source or step `{name}`"),
            hint,
        );
    };
    let receiver = shared.run.taps.watch(&[edge]);
    let (sender, stream) = futures::channel::mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    let spawned = std::thread::Builder::new().name(format!("tap-{name}")).spawn(move || {
        let mut sender = sender;
        // Ends when the run ends, or the watcher: its stream is gone then.
        while !sender.is_closed() {
            let batch = match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok((_, batch)) => batch,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let line = rows::lines(&batch).map(Bytes::from).map_err(std::io::Error::other);
            if futures::executor::block_on(futures::SinkExt::send(&mut sender, line)).is_err() {
                break;
            }
        }
    });
    match spawned {
        Ok(_) => (
            [(header::CONTENT_TYPE, "application/x-ndjson")],
            Body::from_stream(stream),
        )
            .into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string(), None),
    }
}

/// The pipeline for programs: its steps, what they read and what they give.
pub fn describe(plan: &Plan) -> Value {
    let names = |edges: &[Edge]| edges.iter().map(|edge| plan.edge_name(*edge)).collect::<Vec<_>>();
    let sources = plan
        .sources
        .iter()
        .map(|s| json!({"name": s.name, "kind": s.kind, "from": [], "table": "samples"}));
    let steps = plan
        .steps
        .iter()
        .map(|s| json!({"name": s.name, "kind": s.kind, "from": names(&s.inputs), "table": s.step.output().name}));
    let sinks = plan
        .sinks
        .iter()
        .map(|s| json!({"name": s.name, "kind": s.kind, "from": names(&s.inputs)}));
    json!({"name": plan.name, "steps": sources.chain(steps).chain(sinks).collect::<Vec<_>>()})
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, title: &str, detail: Option<String>) -> Response {
    let body = json!({"status": status.as_u16(), "title": title, "detail": detail});
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}
