//! `Idempotency-Key`: the same key with the same body gets the same answer for a day.

use flota_common::clock;
use flota_proto::JobId;
use flota_proto::kinds::FieldError;
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::submissions::Keyed;
use crate::handle::{IdempotencyKey, Refused, Submitted};
use crate::store::IdempotencyRow;

/// `Ok(id)` or `Err((code, message))`, as it is stored.
type Item = Result<JobId, (String, String)>;

/// What is stored for a key.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    /// The answer.
    Answer(Vec<Item>),
    /// Not all was taken in: the ids of all jobs, so that whoever asks again goes on where it ended.
    Begun {
        /// In order.
        ids: Vec<JobId>,
    },
}

/// What became of a key before.
pub(super) enum Before {
    /// It is new.
    New,
    /// It was answered.
    Answered(Submitted),
    /// It was begun with these ids.
    Begun(Vec<JobId>),
}

impl Dispatcher {
    /// The answer that a key had already.
    pub(super) fn before(&mut self, key: &IdempotencyKey) -> Result<Before, Refused> {
        let same = |owner: &str, name: &str| owner == key.owner && name == key.key;
        let in_work =
            self.submissions.iter().filter_map(|submission| submission.keyed.as_ref().map(|keyed| &keyed.key));
        let in_batch = self.keys.iter().map(|row| (&row.owner, &row.key));
        if in_work.map(|k| (&k.owner, &k.key)).chain(in_batch).any(|(owner, name)| same(owner, name)) {
            let detail = "a request with this Idempotency-Key is still in work: try again in a moment";
            return Err(Refused::Conflict("idempotency_in_work", detail.into()));
        }
        let found = self.store.own_reader().idempotency(&key.owner, &key.key);
        let row = found.map_err(|error| Refused::Unavailable(format!("failed to {error}")))?;
        match row {
            None => Ok(Before::New),
            Some(row) if clock::now().since_ms(row.created_at) > 86_400_000 => Ok(Before::New),
            Some(row) if row.digest == key.body_digest => Ok(decode(&row.answer)),
            Some(_) => Err(Refused::Invalid(FieldError::new(
                "Idempotency-Key",
                "was used with another body within the last 24 hours: use a new key for a new request",
            ))),
        }
    }

    /// Stores an answer in the commit of the batch. What was refused for the moment only is not kept as refused.
    pub(super) fn keep_answer(&mut self, keyed: Keyed, answer: &Submitted) {
        let passing = |item: &&Result<JobId, Refused>| {
            matches!(
                item,
                Err(Refused::Busy { .. }
                    | Refused::BudgetSpent { .. }
                    | Refused::Unavailable(_)
                    | Refused::StoreFull(_))
            )
        };
        match answer.iter().filter(passing).count() {
            0 => self.keep(&keyed.key, &Kept::Answer(encode(answer))),
            refused if refused == answer.len() => {}
            _ => self.keep_begun(&keyed),
        }
    }

    /// Stores with the first slice of a submission which ids all of its jobs have.
    pub(super) fn keep_begun(&mut self, keyed: &Keyed) {
        self.keep(&keyed.key, &Kept::Begun { ids: keyed.ids.clone() });
    }

    fn keep(&mut self, key: &IdempotencyKey, kept: &Kept) {
        self.keys.push(IdempotencyRow {
            owner: key.owner.clone(),
            key: key.key.clone(),
            digest: key.body_digest,
            answer: serde_json::to_string(kept).unwrap_or_default(),
            created_at: clock::now(),
        });
    }
}

fn encode(answer: &Submitted) -> Vec<Item> {
    answer
        .iter()
        .map(|item| match item {
            Ok(id) => Ok(*id),
            Err(Refused::Invalid(error)) => Err((error.path.clone(), error.message.clone())),
            Err(Refused::Conflict(code, detail)) => Err((format!("!{code}"), detail.clone())),
            Err(other) => Err(("!refused".into(), other.to_string())),
        })
        .collect()
}

fn decode(answer: &str) -> Before {
    let items = match serde_json::from_str(answer) {
        Ok(Kept::Answer(items)) => items,
        Ok(Kept::Begun { ids }) => return Before::Begun(ids),
        Err(_) => return Before::New,
    };
    let items = items
        .into_iter()
        .map(|item| {
            item.map_err(|(path, message)| match path.strip_prefix('!') {
                Some("id_taken") => Refused::Conflict("id_taken", message),
                Some(_) => Refused::Conflict("refused", message),
                None => Refused::Invalid(FieldError::new(path, message)),
            })
        })
        .collect();
    Before::Answered(items)
}
