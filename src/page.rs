//! The page, embedded at build from `dashboard/dist`.

use axum::body::Body;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "dashboard/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: &str = "This binary was built without the page. Run `make dashboard`, then build again.\n";

/// A file of the page; `/` is its entry.
pub async fn page(uri: Uri) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    match Dist::get(path) {
        Some(file) => {
            let cache = if path.starts_with("assets/") {
                "public, max-age=31536000, immutable"
            } else {
                "no-cache"
            };
            let headers = [
                (header::CONTENT_TYPE, file.metadata.mimetype()),
                (header::CACHE_CONTROL, cache),
            ];
            (headers, Body::from(file.data)).into_response()
        }
        None if path == "index.html" => NOT_BUILT.into_response(),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}
