//! What a sender is told: what was taken, or why not.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::verdicts::Refused;

/// The most reasons that an answer lists.
const REASONS: usize = 100;

/// Whose words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Ours, with problem documents (RFC 9457).
    Own,
    /// InfluxDB 1: `/write`. Its senders give up on any 4xx, so that 503 says "later".
    Influx1,
    /// InfluxDB 2: `/api/v2/write`.
    Influx2,
}

/// What was taken of a body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Samples taken.
    pub accepted: usize,
    /// Rows, or values of them, that weren't; the first hundred with their reasons.
    pub refused: usize,
    /// Samples that the settings leave out.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u64,
    pub reasons: Vec<Reason>,
}

/// Why a row wasn't taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reason {
    /// Which: its place in the list, or its line, from 0.
    pub index: u64,
    pub reason: String,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Answer {
    /// `refused` are the first of so many `refusals`.
    pub(super) fn of(accepted: usize, left_out: u64, (refused, refusals): (&[Refused], usize)) -> Self {
        let reasons = refused.iter().take(REASONS).map(|refused| Reason {
            index: refused.index,
            reason: refused.reason.clone(),
        });
        Answer {
            accepted,
            refused: refusals,
            left_out,
            reasons: reasons.collect(),
        }
    }

    /// The first reason, and how many there are.
    fn sentence(&self) -> String {
        let first = self
            .reasons
            .first()
            .map(|first| format!("row {}: {}", first.index, first.reason));
        let more = match self.refused {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        format!("{}{more}", first.unwrap_or_default())
    }

    pub(super) fn respond(&self, dialect: Dialect) -> Response {
        match dialect {
            Dialect::Own => (StatusCode::ACCEPTED, axum::Json(self)).into_response(),
            _ if self.refused == 0 => StatusCode::NO_CONTENT.into_response(),
            // As InfluxDB says it; its senders log this and don't repeat the rows.
            _ => {
                let detail = format!(
                    "partial write: {} of {} values were refused: {}",
                    self.refused,
                    self.refused + self.accepted,
                    self.sentence()
                );
                Fault::new(StatusCode::BAD_REQUEST, detail).respond(dialect)
            }
        }
    }
}

/// Why a request wasn't taken.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    detail: String,
    retry_after_secs: Option<u64>,
    answer: Option<Answer>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Fault {
            status,
            detail: detail.into(),
            retry_after_secs: None,
            answer: None,
        }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Fault::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Says when to come again.
    #[must_use]
    pub(super) fn later(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs.max(1));
        self
    }

    /// No row was good.
    pub(super) fn nothing_good(answer: Answer) -> Self {
        Fault {
            answer: Some(answer.clone()),
            ..Fault::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("no row could be taken: {}", answer.sentence()),
            )
        }
    }

    pub(super) fn respond(self, dialect: Dialect) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let status = match (dialect, self.status) {
            (Dialect::Influx1, StatusCode::TOO_MANY_REQUESTS) => StatusCode::SERVICE_UNAVAILABLE,
            (Dialect::Influx1 | Dialect::Influx2, StatusCode::UNPROCESSABLE_ENTITY) => StatusCode::BAD_REQUEST,
            (_, status) => status,
        };
        let mut body = match dialect {
            Dialect::Own => {
                json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": self.detail})
            }
            Dialect::Influx1 => json!({"error": self.detail}),
            Dialect::Influx2 => {
                let code = match status {
                    StatusCode::UNAUTHORIZED => "unauthorized",
                    StatusCode::NOT_FOUND => "not found",
                    StatusCode::PAYLOAD_TOO_LARGE => "request too large",
                    StatusCode::TOO_MANY_REQUESTS => "too many requests",
                    StatusCode::SERVICE_UNAVAILABLE => "unavailable",
                    status if status.is_server_error() => "internal error",
                    _ => "invalid",
                };
                json!({"code": code, "message": self.detail})
            }
        };
        if let (Dialect::Own, Some(answer), Some(body)) = (dialect, &self.answer, body.as_object_mut()) {
            body.insert("accepted".into(), answer.accepted.into());
            body.insert("refused".into(), answer.refused.into());
            body.insert("reasons".into(), json!(answer.reasons));
        }
        let media = match dialect {
            Dialect::Own => "application/problem+json",
            _ => "application/json",
        };
        let mut response = (status, [(header::CONTENT_TYPE, media)], body.to_string()).into_response();
        if let Some(secs) = self.retry_after_secs {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            let asks = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, asks);
        }
        response
    }
}
