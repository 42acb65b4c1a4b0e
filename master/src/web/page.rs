//! The page, built by npm into `web/dist` and embedded here, and the stock Socket.IO client beside it. The build has compressed
//! what gains by it: a browser gets the form that it takes.

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

/// What the build makes beside a file, the smallest first: the name in HTTP and the ending.
const ENCODINGS: [(&str, &str); 2] = [("br", "br"), ("gzip", "gz")];

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
    let file = if name.is_empty() { INDEX } else { name };
    if let Some(found) = answer(file, request.headers()) {
        return found;
    }
    if name.rsplit('/').next().is_some_and(|last| last.contains('.')) {
        return Failure::no_route(path).into_response();
    }
    answer(INDEX, request.headers()).unwrap_or_else(|| how_to_build(name))
}

fn how_to_build(name: &str) -> Response {
    let status = if name.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], HOW_TO_BUILD)
        .into_response()
}

/// The stock Socket.IO client, as pages expect it beside the server.
pub async fn client(headers: HeaderMap) -> Response {
    answer(CLIENT, &headers).unwrap_or_else(|| {
        let detail =
            "the Socket.IO client comes with the page: run 'npm ci && npm run build' in web/, then compile again";
        Failure::new(StatusCode::NOT_FOUND, "page_not_built", detail).into_response()
    })
}

/// The file `name` in the best form that the client takes; `None` when there is none.
fn answer(name: &str, asked: &HeaderMap) -> Option<Response> {
    let plain = Dist::get(name)?;
    let compressed = ENCODINGS.iter().find_map(|(encoding, ending)| {
        let file = takes(asked, encoding).then(|| Dist::get(&format!("{name}.{ending}"))).flatten()?;
        Some((file, Some(*encoding)))
    });
    let (file, encoding) = compressed.unwrap_or((plain, None));
    let tag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let caching = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known == "*" || known.contains(&tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        content(name, file, encoding)
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Some(response)
}

fn content(name: &str, file: EmbeddedFile, encoding: Option<&'static str>) -> Response {
    let body = match file.data {
        Cow::Borrowed(bytes) => Body::from(bytes),
        Cow::Owned(bytes) => Body::from(bytes),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

/// Whether `Accept-Encoding` names `encoding`, and not with a weight of nothing.
fn takes(asked: &HeaderMap, encoding: &str) -> bool {
    let lists = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))])
    }

    #[test]
    fn an_encoding_is_taken_where_it_is_named_with_a_weight() {
        assert!(takes(&asked("gzip, deflate, br"), "br"));
        assert!(takes(&asked("GZIP;q=0.5"), "gzip"));
        assert!(!takes(&asked("br;q=0, gzip"), "br"));
        assert!(!takes(&asked("brotli"), "br"));
        assert!(!takes(&HeaderMap::new(), "gzip"));
    }
}
