//! REST for what AI jobs used, and for the models that there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use flota_proto::{Timestamp, rest};

use super::App;
use super::extract::{Caller, Params, bad_parameter};
use super::problem::Failure;
use crate::dispatcher::UsageQuery;
use crate::ledger;

/// The ledger: what AI jobs used by day, owner, provider and model, and what the caller may still use today.
#[utoipa::path(
    get, path = "/usage", tag = "fleet", operation_id = "get_usage",
    params(
        ("from" = Option<String>, Query, description = "The first day, such as 2026-11-21, UTC; 30 days without it"),
        ("to" = Option<String>, Query, description = "The last day; today without it"),
        ("owner" = Option<String>, Query, description = "Of this owner only"),
        ("X-Flota-Owner" = Option<String>, Header, description = "Whose budget is told where `owner` is not named; `local` without it"),
    ),
    responses(
        (status = 200, body = rest::UsageReport),
        (status = 400, description = "A parameter is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn usage(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut params: Params,
) -> Result<Json<rest::UsageReport>, Failure> {
    let (from, to) = (day(&mut params, "from")?, day(&mut params, "to")?);
    let owner = params.one("owner")?;
    params.finish()?;
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(bad_parameter("from", "lies behind to"));
    }
    let query = UsageQuery { from, to, owner, caller: caller.principal.owner };
    Ok(Json(app.handle.usage(query).await?))
}

fn day(params: &mut Params, name: &str) -> Result<Option<u32>, Failure> {
    let Some(text) = params.one(name)? else { return Ok(None) };
    let begin = Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")).filter(|_| text.len() == 10);
    let begin = begin.ok_or_else(|| bad_parameter(name, "must be a day such as 2026-11-21"))?;
    Ok(Some(ledger::day_of(begin)))
}

/// The models that workers which are there serve. A question may name any of them, also a class.
#[utoipa::path(
    get, path = "/models", tag = "fleet", operation_id = "list_models",
    responses((status = 200, body = rest::Page<rest::ModelInfo>))
)]
pub async fn models(State(app): State<Arc<App>>, params: Params) -> Result<Json<rest::Page<rest::ModelInfo>>, Failure> {
    params.finish()?;
    let items = app.handle.models().await?;
    Ok(Json(rest::Page { items, next_cursor: None }))
}
