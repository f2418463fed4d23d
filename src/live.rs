//! The page's WebSocket: what changes, as JSON text frames.
//!
//! The server sends `pipeline`, `machines`, `alerts`, and for the watched machine `cycles` and `samples`; the page sends
//! `{"watch": MACHINE}`. `dashboard/src/messages.ts` has the types.

use std::sync::Arc;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::board::{Board, Event};

#[derive(Deserialize)]
struct Watch {
    watch: Option<String>,
}

/// Serves one page until it goes away or the run has ended.
pub async fn serve(mut socket: WebSocket, pipeline: Value, board: Arc<Board>) {
    let mut watching = Watching {
        board: Arc::clone(&board),
        machine: None,
    };
    // A send fails only when the page has gone; then there is nobody to tell.
    let _ = converse(&mut socket, pipeline, &board, &mut watching).await;
}

async fn converse(
    socket: &mut WebSocket,
    pipeline: Value,
    board: &Board,
    watching: &mut Watching,
) -> Result<(), axum::Error> {
    let mut events = board.events.subscribe();
    send(socket, pipeline).await?;
    send(socket, machines(board)).await?;
    send(socket, alerts(board)).await?;
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(Watch { watch }) = serde_json::from_str(&text) {
                        watching.turn_to(watch);
                        if let Some(machine) = &watching.machine {
                            send(socket, all_cycles(board, machine)).await?;
                        }
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            event = events.recv() => match event {
                Ok(Event::Machines) => send(socket, machines(board)).await?,
                Ok(Event::Alerts) => send(socket, alerts(board)).await?,
                Ok(Event::Cycle(machine, cycle)) if watching.is(&machine) => {
                    let cycles = json!([*cycle]);
                    send(socket, json!({"type": "cycles", "machine": &*machine, "reset": false, "cycles": cycles})).await?;
                }
                Ok(Event::Samples(machine, signals)) if watching.is(&machine) => {
                    send(socket, json!({"type": "samples", "machine": &*machine, "signals": *signals})).await?;
                }
                Ok(_) => {}
                // The page was too slow for some changes: it gets the whole anew.
                Err(RecvError::Lagged(_)) => {
                    send(socket, machines(board)).await?;
                    send(socket, alerts(board)).await?;
                    if let Some(machine) = &watching.machine {
                        send(socket, all_cycles(board, machine)).await?;
                    }
                }
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

fn machines(board: &Board) -> Value {
    json!({"type": "machines", "machines": board.machines()})
}

fn alerts(board: &Board) -> Value {
    json!({"type": "alerts", "alerts": board.alerts()})
}

fn all_cycles(board: &Board, machine: &str) -> Value {
    json!({"type": "cycles", "machine": machine, "reset": true, "cycles": board.cycles(machine)})
}

async fn send(socket: &mut WebSocket, message: Value) -> Result<(), axum::Error> {
    socket.send(Message::Text(Utf8Bytes::from(message.to_string()))).await
}

/// Keeps the board announcing the samples of one machine, and no longer than the page looks.
struct Watching {
    board: Arc<Board>,
    machine: Option<String>,
}

impl Watching {
    fn is(&self, machine: &str) -> bool {
        self.machine.as_deref() == Some(machine)
    }

    fn turn_to(&mut self, machine: Option<String>) {
        if let Some(old) = self.machine.take() {
            self.board.unwatch(&old);
        }
        if let Some(new) = &machine {
            self.board.watch(new);
        }
        self.machine = machine;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.turn_to(None);
    }
}
