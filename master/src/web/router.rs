//! Which address leads where, and what lies around all of them.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use axum::routing::{any, get};
use bytes::Bytes;
use socketioxide::layer::SocketIoLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

use super::{App, guard, health, openapi, page, parameters, problem};

/// All routes.
pub fn build(app: &Arc<App>, socket: SocketIoLayer) -> Router {
    let (api, document) = openapi::routes(app.metrics.version());
    let parameters = Arc::new(parameters::Parameters::of(&document));
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    // The layer takes every request to these; the handler only makes them routes.
    let socket_io =
        Router::new().route("/socket.io/", any(page::page)).route("/socket.io", any(page::page)).layer(socket);
    let router = api
        .route("/api/v1/openapi.json", get(move || std::future::ready(json(document.clone()))))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/socket.io/socket.io.js", get(page::client))
        .route("/socket.io/socket.io.min.js", get(page::client))
        .merge(socket_io)
        .fallback(page::page)
        .method_not_allowed_fallback(page::not_allowed)
        .with_state(app.clone())
        .layer(middleware::from_fn_with_state(parameters, parameters::check))
        .layer(middleware::from_fn_with_state(app.clone(), guard::check_room))
        .layer(middleware::from_fn_with_state(app.guard.clone(), guard::check))
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(middleware::map_response(guard::harden));
    match cors(app) {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

fn json(document: Bytes) -> ([(HeaderName, HeaderValue); 1], Bytes) {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document)
}

fn cors(app: &App) -> Option<CorsLayer> {
    let origins = app.guard.cors_origins();
    if origins.is_empty() {
        return None;
    }
    let own = ["idempotency-key", "last-event-id", "x-flota-owner", "x-flota-api-key", "x-flota-conversation-secret"]
        .map(HeaderName::from_static);
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(own.into_iter().chain([header::AUTHORIZATION, header::CONTENT_TYPE]).collect::<Vec<_>>())
        // The stock Socket.IO client polls with credentials where the page asks it to.
        .allow_credentials(true)
        .expose_headers([header::LOCATION, header::RETRY_AFTER]);
    Some(cors)
}
