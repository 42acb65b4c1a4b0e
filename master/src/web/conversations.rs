//! REST for conversations. Their owner opens them, and who knows their secret; to anybody else they are not there.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flota_proto::conversations::{
    Conversation, ConversationExport, ConversationMessage, NewConversation, PatchConversation, TITLE_CHARS_MAX,
};
use flota_proto::kinds::{FieldError, Role};
use flota_proto::rest;
use uuid::Uuid;

use super::App;
use super::extract::{self, Body, Caller, Params, bad_parameter};
use super::problem::Failure;
use crate::conversation::{Access, Cursor};
use crate::handle::Refused;

/// Messages read at once for an export.
const EXPORT_PAGE: usize = 500;
const SEARCH_CHARS_MAX: usize = 200;

/// The conversation that the path names, and who wants it.
pub struct Wanted(Access);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Caller { principal, conversation_secret, .. } = Caller::from_request_parts(parts, state).await?;
        let id: Uuid = extract::path_id(parts, state).await?;
        Ok(Self(Access { id, owner: principal.owner, secret: conversation_secret }))
    }
}

fn bad_cursor() -> Failure {
    bad_parameter("cursor", "is no cursor of this list")
}

fn title(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    if (1..=TITLE_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let message = format!("must be 1 to {TITLE_CHARS_MAX} characters without control characters");
    Err(Failure::invalid(&FieldError::new("title", message)))
}

/// Begins a conversation.
///
/// A question continues it by its `conversation_id`; what was said before is sent with the question, as far as
/// `FLOTA_CONVERSATION_TOKENS` allows.
#[utoipa::path(
    post, path = "/conversations", tag = "conversations", operation_id = "create_conversation",
    request_body = NewConversation,
    params(("X-Flota-Owner" = Option<String>, Header, description = "Whose it is; `local` without it")),
    responses(
        (status = 201, body = Conversation, headers(("Location" = String))),
        (status = 409, description = "The id is taken", body = rest::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create(State(app): State<Arc<App>>, caller: Caller, Body(body): Body) -> Result<Response, Failure> {
    let new: NewConversation = if body.is_empty() { NewConversation::default() } else { extract::json_object(&body)? };
    let title = new.title.as_deref().map(title).transpose()?;
    let made = app.handle.conversation_create(caller.principal.owner, new.id, title).await?;
    let location = format!("/api/v1/conversations/{}", made.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)).into_response())
}

/// Lists the caller's conversations, latest first.
#[utoipa::path(
    get, path = "/conversations", tag = "conversations", operation_id = "list_conversations",
    params(
        ("q" = Option<String>, Query, description = "Stands in the title or in a message, whatever its case"),
        ("limit" = Option<u32>, Query, description = "1 to 500, 50 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("X-Flota-Owner" = Option<String>, Header, description = "Whose; `local` without it"),
    ),
    responses(
        (status = 200, body = rest::Page<Conversation>),
        (status = 400, description = "A parameter is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut params: Params,
) -> Result<Json<rest::Page<Conversation>>, Failure> {
    let (limit, cursor) = params.page()?;
    let search = params.one("q")?;
    params.finish()?;
    let cursor: Option<Cursor> = cursor.map(|cursor| cursor.parse()).transpose().map_err(|()| bad_cursor())?;
    if search.as_ref().is_some_and(|text| text.chars().count() > SEARCH_CHARS_MAX) {
        return Err(bad_parameter("q", &format!("is at most {SEARCH_CHARS_MAX} characters")));
    }
    Ok(Json(app.handle.conversations(caller.principal.owner, search, limit, cursor).await?))
}

/// One conversation, with the secret that opens it to others.
#[utoipa::path(
    get, path = "/conversations/{id}", tag = "conversations", operation_id = "get_conversation",
    params(
        ("id" = String, Path, description = "The conversation's UUID"),
        ("X-Flota-Owner" = Option<String>, Header, description = "Who asks; `local` without it"),
        ("X-Flota-Conversation-Secret" = Option<String>, Header, description = "For who is not its owner"),
    ),
    responses(
        (status = 200, body = Conversation),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(State(app): State<Arc<App>>, Wanted(access): Wanted) -> Result<Json<Conversation>, Failure> {
    Ok(Json(app.handle.conversation(access).await?))
}

/// Gives a conversation another title.
#[utoipa::path(
    patch, path = "/conversations/{id}", tag = "conversations", operation_id = "rename_conversation",
    params(("id" = String, Path, description = "The conversation's UUID")),
    request_body = PatchConversation,
    responses(
        (status = 200, body = Conversation),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn rename(
    State(app): State<Arc<App>>,
    Wanted(access): Wanted,
    Body(body): Body,
) -> Result<Json<Conversation>, Failure> {
    let patch: PatchConversation = extract::json_object(&body)?;
    Ok(Json(app.handle.conversation_rename(access, title(&patch.title)?).await?))
}

/// Deletes a conversation. Questions of it that have not been answered are cancelled.
#[utoipa::path(
    delete, path = "/conversations/{id}", tag = "conversations", operation_id = "delete_conversation",
    params(("id" = String, Path, description = "The conversation's UUID")),
    responses(
        (status = 204),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn delete(State(app): State<Arc<App>>, Wanted(access): Wanted) -> Result<StatusCode, Failure> {
    app.handle.conversation_delete(access).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The messages of a conversation, in order.
#[utoipa::path(
    get, path = "/conversations/{id}/messages", tag = "conversations", operation_id = "list_messages",
    params(
        ("id" = String, Path, description = "The conversation's UUID"),
        ("limit" = Option<u32>, Query, description = "1 to 500, 50 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before: the index of the next message"),
    ),
    responses(
        (status = 200, body = rest::Page<ConversationMessage>),
        (status = 400, description = "A parameter is wrong", body = rest::Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn messages(
    State(app): State<Arc<App>>,
    Wanted(access): Wanted,
    mut params: Params,
) -> Result<Json<rest::Page<ConversationMessage>>, Failure> {
    let (limit, cursor) = params.page()?;
    params.finish()?;
    let from = cursor.map_or(Ok(0), |cursor| cursor.parse());
    let from = from.map_err(|_| bad_cursor())?;
    Ok(Json(app.handle.conversation_messages(access, limit, from).await?))
}

/// Deletes the messages from a question on, to ask it anew or another one.
#[utoipa::path(
    delete, path = "/conversations/{id}/messages", tag = "conversations", operation_id = "truncate_conversation",
    params(
        ("id" = String, Path, description = "The conversation's UUID"),
        ("from" = u32, Query, description = "The index of a question, an even number"),
    ),
    responses(
        (status = 200, body = Conversation),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "A question there has not been answered", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn truncate(
    State(app): State<Arc<App>>,
    Wanted(access): Wanted,
    mut params: Params,
) -> Result<Json<Conversation>, Failure> {
    let from = params.number("from", 0..=u64::from(u32::MAX))?;
    params.finish()?;
    let from = from.and_then(|from| u32::try_from(from).ok()).filter(|from| from.is_multiple_of(2));
    let from = from.ok_or_else(|| bad_parameter("from", "must be the index of a question, an even number"))?;
    Ok(Json(app.handle.conversation_truncate(access, from).await?))
}

/// A whole conversation as a document.
#[utoipa::path(
    get, path = "/conversations/{id}/export", tag = "conversations", operation_id = "export_conversation",
    params(
        ("id" = String, Path, description = "The conversation's UUID"),
        ("format" = Option<String>, Query, description = "`markdown` or `json`; `markdown` without it"),
    ),
    responses(
        (status = 200, content((ConversationExport = "application/json"), (String = "text/markdown"))),
        (status = 404, description = "There is none that the caller may see", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn export(
    State(app): State<Arc<App>>,
    Wanted(access): Wanted,
    mut params: Params,
) -> Result<Response, Failure> {
    let format = params.one("format")?;
    params.finish()?;
    let json = match format.as_deref() {
        None | Some("markdown") => false,
        Some("json") => true,
        Some(_) => return Err(bad_parameter("format", "must be markdown or json")),
    };
    let conversation = app.handle.conversation(access.clone()).await?;
    let items = all_messages(&app, access).await?;
    // The document is given away; the secret is not.
    let whole = ConversationExport { conversation: Conversation { secret: None, ..conversation }, items };
    let id = whole.conversation.id;
    let (kind, ending, body) = if json {
        let body = serde_json::to_string_pretty(&whole).map_err(|e| Refused::Unavailable(e.to_string()))?;
        ("application/json", "json", body)
    } else {
        ("text/markdown; charset=utf-8", "md", markdown(&whole))
    };
    let name = format!("attachment; filename=\"conversation-{id}.{ending}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)], body).into_response())
}

async fn all_messages(app: &App, access: Access) -> Result<Vec<ConversationMessage>, Failure> {
    let mut items: Vec<ConversationMessage> = Vec::new();
    loop {
        let from = items.last().map_or(0, |last| last.index + 1);
        let page = app.handle.conversation_messages(access.clone(), EXPORT_PAGE, from).await?;
        items.extend(page.items);
        if page.next_cursor.is_none() {
            return Ok(items);
        }
    }
}

fn markdown(whole: &ConversationExport) -> String {
    let title = if whole.conversation.title.is_empty() { "Conversation" } else { &whole.conversation.title };
    let mut text = format!("# {title}\n\n_{}_\n", whole.conversation.created_at.to_rfc3339());
    for message in &whole.items {
        let who = match message.role {
            Role::User => "User",
            Role::Assistant | Role::System => "Assistant",
        };
        let _ = write!(text, "\n## {who}\n\n");
        if !message.content.is_empty() {
            let _ = writeln!(text, "{}", message.content.trim_end());
        }
        let Some(answer) = &message.answer else { continue };
        if answer.dropped_turns > 0 {
            let _ = write!(text, "\n_(without the oldest {} turns)_\n", answer.dropped_turns);
        }
        if let Some(error) = &answer.error {
            let _ = write!(text, "\n_({}: {})_\n", error.code, error.message);
        } else if answer.finish != "complete" {
            let _ = write!(text, "\n_({})_\n", answer.finish);
        }
        if let (Some(model), Some(provider)) = (&answer.model, &answer.provider) {
            let _ = write!(text, "\n_{model} ({provider})_\n");
        }
    }
    text
}
