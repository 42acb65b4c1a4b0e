//! `Idempotency-Key`: the same key with the same body gets the same answer for a day.

use flota_common::clock;
use flota_proto::kinds::FieldError;

use super::Dispatcher;
use crate::handle::{IdempotencyKey, Refused, Submitted};
use crate::store::IdempotencyRow;

/// `Ok(id)` or `Err((code, message))`, as it is stored.
type Item = Result<flota_proto::JobId, (String, String)>;

impl Dispatcher {
    /// The answer that a key had already.
    pub(super) fn answered_before(&mut self, key: &IdempotencyKey) -> Result<Option<Submitted>, Refused> {
        let same = |owner: &str, name: &str| owner == key.owner && name == key.key;
        let in_work = self.submissions.iter().filter_map(|submission| submission.key.as_ref());
        let in_batch = self.keys.iter().map(|row| (&row.owner, &row.key));
        if in_work.map(|k| (&k.owner, &k.key)).chain(in_batch).any(|(owner, name)| same(owner, name)) {
            let detail = "a request with this Idempotency-Key is still in work: try again in a moment";
            return Err(Refused::Conflict("idempotency_in_work", detail.into()));
        }
        let found = self.store.own_reader().idempotency(&key.owner, &key.key);
        let row = found.map_err(|error| Refused::Unavailable(format!("failed to {error}")))?;
        match row {
            None => Ok(None),
            Some(row) if clock::now().since_ms(row.created_at) > 86_400_000 => Ok(None),
            Some(row) if row.digest == key.body_digest => Ok(Some(decode(&row.answer))),
            Some(_) => Err(Refused::Invalid(FieldError::new(
                "Idempotency-Key",
                "was used with another body within the last 24 hours: use a new key for a new request",
            ))),
        }
    }

    /// Stores an answer in the commit of the batch.
    pub(super) fn keep_answer(&mut self, key: IdempotencyKey, answer: &Submitted) {
        self.keys.push(IdempotencyRow {
            owner: key.owner,
            key: key.key,
            digest: key.body_digest,
            answer: encode(answer),
            created_at: clock::now(),
        });
    }
}

fn encode(answer: &Submitted) -> String {
    let items: Vec<Item> = answer
        .iter()
        .map(|item| match item {
            Ok(id) => Ok(*id),
            Err(Refused::Invalid(error)) => Err((error.path.clone(), error.message.clone())),
            Err(Refused::Conflict(code, detail)) => Err((format!("!{code}"), detail.clone())),
            Err(other) => Err(("!refused".into(), other.to_string())),
        })
        .collect();
    serde_json::to_string(&items).unwrap_or_default()
}

fn decode(answer: &str) -> Submitted {
    let items: Vec<Item> = serde_json::from_str(answer).unwrap_or_default();
    items
        .into_iter()
        .map(|item| {
            item.map_err(|(path, message)| match path.strip_prefix('!') {
                Some("id_taken") => Refused::Conflict("id_taken", message),
                Some(_) => Refused::Conflict("refused", message),
                None => Refused::Invalid(FieldError::new(path, message)),
            })
        })
        .collect()
}
