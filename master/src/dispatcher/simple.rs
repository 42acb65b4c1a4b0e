//! The simple worker protocol's answers: a session id and a timestamp name the attempt.

use bytes::Bytes;
use flota_proto::kinds::{ChatResult, Finish, Usage};
use flota_proto::rest::JobError;
use flota_proto::{UnitId, WorkerId, simple};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::{Dispatcher, Moment};
use crate::core::{Asked, Input};
use crate::handle::{Refused, Reply};

/// What is kept of a simple worker's error text.
const ERROR_CHARS_MAX: usize = 500;

impl Dispatcher {
    /// A UUID that nobody can guess and that a master finds again after a restart: made from the store's secret.
    pub(super) fn simple_session(&self, unit: UnitId, attempt: u64) -> String {
        let mut bytes = [0; 16];
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) {
            mac.update(unit.to_string().as_bytes());
            mac.update(&attempt.to_be_bytes());
            bytes.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    pub(super) fn simple_result(&mut self, at: Moment, result: simple::TaskResult, reply: Reply<String>) {
        let answer = match self.apply_simple(at, result) {
            Ok(()) => "the answer was stored".to_owned(),
            Err(refused) => format!("ignored: {refused}"),
        };
        self.answer(reply, answer);
    }

    fn apply_simple(&mut self, at: Moment, result: simple::TaskResult) -> Result<(), Refused> {
        let stale = || Refused::Conflict("stale", "no question of this worker waits for this answer".into());
        let worker: WorkerId = result.worker_id.parse().map_err(|_| stale())?;
        let Asked { unit, attempt, assigned_at, wanted } = self.core.held_by_simple(&worker).ok_or_else(stale)?;
        let named = Uuid::parse_str(&result.session_id).map_err(|_| stale())?;
        let expected = self.simple_session(unit, attempt);
        let same_time = u64::try_from(result.query_timestamp).is_ok_and(|ms| ms == assigned_at.0);
        if named.to_string() != expected || !same_time {
            return Err(stale());
        }
        let answer = match result.ai_response.strip_prefix("Error:") {
            Some(text) => Err(JobError {
                code: "worker_error".into(),
                message: text.trim().chars().take(ERROR_CHARS_MAX).collect(),
            }),
            None => Ok(chat_result(result.ai_response)?),
        };
        let input = Input::SimpleAnswer { worker, unit, attempt, answer };
        self.core.apply(at, input, &mut self.effects)?;
        if wanted { Ok(()) } else { Err(Refused::Conflict("cancelled", "the question was cancelled".into())) }
    }
}

fn chat_result(text: String) -> Result<Bytes, Refused> {
    let result = ChatResult {
        text,
        model: String::new(),
        provider: "simple".into(),
        finish: Finish::Complete,
        finish_reason: None,
        dropped_turns: 0,
        notes: Vec::new(),
        usage: Usage::default(),
    };
    let json = serde_json::to_vec(&result).map_err(|error| Refused::Unavailable(error.to_string()))?;
    Ok(Bytes::from(json))
}
