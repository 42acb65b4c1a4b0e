//! The page, built by npm into `web/dist` and embedded here, and the stock Socket.IO client beside it.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::problem::Failure;

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

const INDEX: &str = "index.html";
const CLIENT: &str = "socket.io.js";
/// Vite puts a hash of the content into the names of what lies here.
const HASHED: &str = "assets/";

const HOW_TO_BUILD: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Flota</title>
<h1>Flota runs, its page is not built</h1>
<p>This master was compiled without the page. Build it, then compile again:</p>
<pre>cd web &amp;&amp; npm ci &amp;&amp; npm run build
cargo build --release</pre>
<p>or just <code>make run</code>. The API is there: <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>.</p>
</html>
";

/// Everything that is no other route: files of the page, and the page itself for addresses that it knows.
pub async fn page(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") || path.starts_with("/socket.io/") {
        return Failure::no_route(path).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed(request.method().clone(), request.uri().clone()).await;
    }
    let name = path.trim_start_matches('/');
    if let Some(file) = Dist::get(if name.is_empty() { INDEX } else { name }) {
        return answer(name, file, request.headers());
    }
    let is_file = name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    match Dist::get(INDEX) {
        _ if is_file => Failure::no_route(path).into_response(),
        Some(index) => answer(INDEX, index, request.headers()),
        None => how_to_build(name),
    }
}

fn how_to_build(name: &str) -> Response {
    let status = if name.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], HOW_TO_BUILD)
        .into_response()
}

/// The stock Socket.IO client, as pages expect it beside the server.
pub async fn client(headers: HeaderMap) -> Response {
    match Dist::get(CLIENT) {
        Some(file) => answer(CLIENT, file, &headers),
        None => {
            let detail =
                "the Socket.IO client comes with the page: run 'npm ci && npm run build' in web/, then compile again";
            Failure::new(StatusCode::NOT_FOUND, "page_not_built", detail).into_response()
        }
    }
}

fn answer(name: &str, file: EmbeddedFile, asked: &HeaderMap) -> Response {
    let name = if name.is_empty() { INDEX } else { name };
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let caching = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known == "*" || known.contains(&tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = match file.data {
            Cow::Borrowed(bytes) => Body::from(bytes),
            Cow::Owned(bytes) => Body::from(bytes),
        };
        let mut response = body.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// 405 for a method that an address does not have.
pub async fn not_allowed(method: Method, uri: Uri) -> Response {
    let detail = format!("{} has no {method}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
}
