//! A body: unpacked, and the format that its type or its first bytes say.

use std::borrow::Cow;
use std::io::Read;

use axum::http::{HeaderMap, StatusCode, header};
use flate2::read::MultiGzDecoder;

use super::fault::Fault;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An object, or a list of them.
    Json,
    /// An object on each line.
    JsonLines,
    /// InfluxDB line protocol.
    Lines,
    /// Arrow IPC, the stream format.
    Arrow,
}

impl Format {
    /// By `Content-Type`; by the first bytes where that says nothing, as `curl -d` leaves it.
    pub(super) fn of(headers: &HeaderMap, body: &[u8]) -> Result<Self, Fault> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "" | "application/x-www-form-urlencoded" | "application/octet-stream" | "text/plain" => {
                Ok(Format::guess(body))
            }
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/json-lines" => Ok(Format::JsonLines),
            "application/vnd.apache.arrow.stream" | "application/vnd.apache.arrow.file" => Ok(Format::Arrow),
            json if json == "application/json" || json == "text/json" || json.ends_with("+json") => Ok(Format::Json),
            other => Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "`Content-Type: {other}` isn't taken; send application/json, application/x-ndjson, \
                     application/vnd.apache.arrow.stream, or text/plain for InfluxDB line protocol"
                ),
            )),
        }
    }

    fn guess(body: &[u8]) -> Self {
        match body.trim_ascii_start() {
            [b'{' | b'[', ..] => Format::Json,
            [0xff, 0xff, 0xff, 0xff, ..] | [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Format::Arrow,
            _ => Format::Lines,
        }
    }
}

/// The body without its `Content-Encoding`.
pub(super) fn unpack<'b>(headers: &HeaderMap, body: &'b [u8], limit: usize) -> Result<Cow<'b, [u8]>, Fault> {
    let value = headers
        .get(header::CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    match value.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body.into()),
        "gzip" | "x-gzip" => {
            let mut whole = Vec::new();
            let mut unpacking = MultiGzDecoder::new(body).take(limit as u64 + 1);
            let read = unpacking.read_to_end(&mut whole);
            read.map_err(|e| Fault::bad(format!("the body is not gzip, though `Content-Encoding` says so: {e}")))?;
            if whole.len() > limit {
                Err(too_large(limit))
            } else {
                Ok(whole.into())
            }
        }
        other => Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("`Content-Encoding: {other}` isn't taken; send gzip or nothing"),
        )),
    }
}

pub(super) fn too_large(limit: usize) -> Fault {
    Fault::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body has more than {limit} bytes; send fewer rows at a time, or raise `max_body`"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn formats() {
        let check = |media: &str, body: &str, expect: Option<Format>| {
            let headers = match media {
                "" => HeaderMap::new(),
                media => headers(header::CONTENT_TYPE, media),
            };
            assert_eq!(Format::of(&headers, body.as_bytes()).ok(), expect, "{media} {body}");
        };
        check("application/json", "m t=1", Some(Format::Json));
        check("Application/JSON; charset=utf-8", "", Some(Format::Json));
        check("application/senml+json", "", Some(Format::Json));
        check("application/x-ndjson", "", Some(Format::JsonLines));
        check("application/vnd.apache.arrow.stream", "", Some(Format::Arrow));
        check("text/plain; charset=utf-8", "m t=1", Some(Format::Lines));
        check("application/x-www-form-urlencoded", " {\"t\":1}", Some(Format::Json));
        check("application/x-www-form-urlencoded", "m t=1", Some(Format::Lines));
        check("", "[1]", Some(Format::Json));
        check("", "ARROW1", Some(Format::Arrow));
        check("text/xml", "", None);
    }

    #[test]
    fn packed_bodies() {
        let pack = |bytes: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        };
        let gzip = headers(header::CONTENT_ENCODING, "gzip");
        assert_eq!(unpack(&gzip, &pack(b"m t=1"), 5).unwrap(), &b"m t=1"[..]);
        assert_eq!(unpack(&HeaderMap::new(), b"m t=1", 5).unwrap(), &b"m t=1"[..]);
        // A few bytes that unpack to many cost no more than the limit.
        let bomb = pack(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        assert!(format!("{:?}", unpack(&gzip, &bomb, 1 << 20).unwrap_err()).contains("413"));
        assert!(format!("{:?}", unpack(&gzip, b"m t=1", 100).unwrap_err()).contains("not gzip"));
        let other = headers(header::CONTENT_ENCODING, "br");
        assert!(format!("{:?}", unpack(&other, b"", 100).unwrap_err()).contains("415"));
    }
}
