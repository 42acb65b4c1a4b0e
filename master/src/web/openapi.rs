//! The OpenAPI document, generated from the handlers.

use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, batch, conversations, events, fleet, history, jobs, logs, sources, submit, usage};

const SCHEME: &str = "token";

/// What the handlers don't say themselves.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Flota",
        description = "Submit jobs to a fleet of workers, follow them, look after the workers. Errors are RFC 9457 \
                       problem documents.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags((name = "jobs"), (name = "fleet"), (name = "conversations"), (name = "sources")),
    components(schemas(
        flota_proto::kinds::HashPayload, flota_proto::kinds::HashResult,
        flota_proto::kinds::SearchPayload, flota_proto::kinds::SearchResult,
        flota_proto::kinds::ChatPayload, flota_proto::kinds::ChatResult,
        flota_proto::kinds::PartialChat,
        flota_proto::kinds::EmbedPayload, flota_proto::kinds::EmbedResult,
        flota_proto::sources::MonerodConfig, flota_proto::sources::StratumConfig, flota_proto::sources::PoolConfig,
        flota_proto::kinds::EchoPayload, flota_proto::kinds::EchoResult,
    ))
)]
struct Document;

/// The routes below `/api/v1`, and the document that describes them.
pub fn routes(version: &str) -> (axum::Router<std::sync::Arc<App>>, OpenApi) {
    let api = OpenApiRouter::new()
        .routes(routes!(submit::submit, jobs::list))
        .routes(routes!(batch::submit_batch))
        .routes(routes!(jobs::get, jobs::change))
        .routes(routes!(jobs::units))
        .routes(routes!(jobs::audit))
        .routes(routes!(events::events))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::retry_many))
        .routes(routes!(fleet::workers))
        .routes(routes!(fleet::worker))
        .routes(routes!(fleet::drain))
        .routes(routes!(fleet::pause))
        .routes(routes!(fleet::resume))
        .routes(routes!(fleet::fleet))
        .routes(routes!(history::history))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::models))
        .routes(routes!(logs::logs))
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::get, conversations::rename, conversations::delete))
        .routes(routes!(conversations::messages, conversations::truncate))
        .routes(routes!(conversations::export))
        .routes(routes!(sources::list, sources::create))
        .routes(routes!(sources::get, sources::remove))
        .routes(routes!(sources::start))
        .routes(routes!(sources::stop));
    let document = <Document as utoipa::OpenApi>::openapi();
    let (router, mut document) = OpenApiRouter::with_openapi(document).nest("/api/v1", api).split_for_parts();
    document.info.version = version.to_owned();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document.components.get_or_insert_default().add_security_scheme(SCHEME, bearer);
    // The empty one: a master on loopback may go without a token.
    document.security =
        Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new()), SecurityRequirement::default()]);
    (router, document)
}
