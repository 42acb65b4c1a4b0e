//! Sealed keys and conversations in SQL. What can't be written for a reason of its own is left out: it must never make a batch
//! of others fail.

use flota_proto::{JobId, Timestamp};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::StoreError;
use super::UsageFilter;
use super::rows::int;
use super::sessions;
use crate::aside::{Aside, ConversationRow, History, MessageRow};
use crate::ledger::{Spent, UsageRow};
use crate::tokens;

/// Characters of a question that become the title.
const TITLE_CHARS: usize = 60;
/// Messages looked at for the history of one question.
const HISTORY_MAX: u32 = 2_000;

fn bytes(id: &Uuid) -> &[u8] {
    id.as_bytes().as_slice()
}

fn uuid(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Other("a row has a bad id".into()))
}

fn time(ms: i64) -> Timestamp {
    Timestamp(u64::try_from(ms).unwrap_or(0))
}

/// Writes one change.
pub fn write(db: &Connection, aside: &Aside) -> Result<(), StoreError> {
    match aside {
        Aside::KeepKey(job, sealed) => db
            .prepare_cached("INSERT OR REPLACE INTO credentials VALUES (?, ?)")?
            .execute(params![bytes(&job.0), sealed])?,
        Aside::DropKey(job) => db.prepare_cached("DELETE FROM credentials WHERE job = ?")?.execute([bytes(&job.0)])?,
        Aside::Used(row) => add_usage(db, row)?,
        Aside::Suspect(job, unit) => {
            if let Some(index) = unit {
                let sql = "UPDATE units SET suspect = 1 WHERE idx = ?1 AND seq = (SELECT seq FROM jobs WHERE id = ?2)";
                db.prepare_cached(sql)?.execute(params![index, bytes(&job.0)])?;
            }
            db.prepare_cached("UPDATE jobs SET suspect = 1 WHERE id = ?")?.execute([bytes(&job.0)])?
        }
        Aside::Session(change, at) => return sessions::write(db, change, *at),
        Aside::Begin(row) => db
            .prepare_cached("INSERT INTO conversations VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")?
            .execute(params![bytes(&row.id), row.owner, row.title, int(row.created_at.0), int(row.updated_at.0)])?,
        Aside::Rename(id, title, at) => db
            .prepare_cached("UPDATE conversations SET title = ?, updated_at = ? WHERE id = ?")?
            .execute(params![title, int(at.0), bytes(id)])?,
        Aside::Delete(id) => {
            db.prepare_cached("DELETE FROM messages WHERE conversation = ?")?.execute([bytes(id)])?;
            db.prepare_cached("DELETE FROM conversations WHERE id = ?")?.execute([bytes(id)])?
        }
        Aside::Truncate(id, from, at) => {
            db.prepare_cached("DELETE FROM messages WHERE conversation = ? AND idx >= ?")?
                .execute(params![bytes(id), from])?;
            touch(db, id, *at, "")?
        }
        Aside::Question { turn, job, at, text } => {
            let sql = "INSERT OR REPLACE INTO messages SELECT ?1, ?2, ?3, ?4, ?5, NULL
                       WHERE EXISTS (SELECT 1 FROM conversations WHERE id = ?1)";
            for (index, text) in [(turn.index, text.as_str()), (turn.index + 1, "")] {
                let values = params![bytes(&turn.conversation), index, bytes(&job.0), int(at.0), text];
                db.prepare_cached(sql)?.execute(values)?;
            }
            touch(db, &turn.conversation, *at, &title_of(text))?
        }
        Aside::Answer { turn, job, at, text, answer } => {
            db.prepare_cached(
                "UPDATE messages SET text = ?, answer = ? WHERE conversation = ? AND idx = ? AND job = ?",
            )?
            .execute(params![text, answer, bytes(&turn.conversation), turn.index + 1, bytes(&job.0)])?;
            touch(db, &turn.conversation, *at, "")?
        }
    };
    Ok(())
}

/// A conversation was changed; it gets `title` where it has none.
fn touch(db: &Connection, id: &Uuid, at: Timestamp, title: &str) -> Result<usize, StoreError> {
    let sql =
        "UPDATE conversations SET updated_at = max(updated_at, ?), title = iif(title = '', ?, title) WHERE id = ?";
    Ok(db.prepare_cached(sql)?.execute(params![int(at.0), title, bytes(id)])?)
}

fn add_usage(db: &Connection, row: &UsageRow) -> Result<usize, StoreError> {
    let sql = "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
               requests = requests + excluded.requests, failed = failed + excluded.failed, cached = cached + excluded.cached,
               input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
               thought_tokens = thought_tokens + excluded.thought_tokens, micros = micros + excluded.micros,
               estimated = estimated + excluded.estimated";
    Ok(db.prepare_cached(sql)?.execute(params![
        row.day,
        row.owner,
        row.provider,
        row.model,
        row.own_key,
        counted(row.requests),
        counted(row.failed),
        counted(row.cached),
        counted(row.input_tokens),
        counted(row.output_tokens),
        counted(row.thought_tokens),
        counted(row.micros),
        counted(row.estimated),
    ])?)
}

/// Small enough to be added to as often as anybody asks: workers say what was used.
fn counted(number: u64) -> i64 {
    int(number.min(1 << 40))
}

/// Rows of the ledger, latest day first.
pub fn usage(db: &Connection, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
    let sql = "SELECT day, owner, provider, model, own_key, requests, failed, cached, input_tokens, output_tokens,
               thought_tokens, micros, estimated FROM usage WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR owner = ?3)
               ORDER BY day DESC, owner, provider, model, own_key LIMIT ?4";
    let mut statement = db.prepare_cached(sql)?;
    let number = |row: &Row<'_>, index: usize| -> Result<u64, rusqlite::Error> {
        Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
    };
    let rows = statement.query_map(params![filter.from, filter.to, filter.owner, int(filter.limit as u64)], |row| {
        Ok(UsageRow {
            day: row.get(0)?,
            owner: row.get(1)?,
            provider: row.get(2)?,
            model: row.get(3)?,
            own_key: row.get(4)?,
            requests: number(row, 5)?,
            failed: number(row, 6)?,
            cached: number(row, 7)?,
            input_tokens: number(row, 8)?,
            output_tokens: number(row, 9)?,
            thought_tokens: number(row, 10)?,
            micros: number(row, 11)?,
            estimated: number(row, 12)?,
        })
    })?;
    rows.map(|row| row.map_err(StoreError::from)).collect()
}

/// What each owner has spent of a day, without what was paid with keys of their own.
pub fn spent(db: &Connection, day: u32) -> Result<Vec<(String, Spent)>, StoreError> {
    let sql = "SELECT owner, sum(input_tokens + output_tokens + thought_tokens), sum(micros) FROM usage
               WHERE day = ? AND NOT own_key GROUP BY owner";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([day], |row| {
        let number = |index: usize| row.get::<_, i64>(index).map(|n| u64::try_from(n).unwrap_or(0));
        Ok((row.get(0)?, Spent { tokens: number(1)?, micros: number(2)? }))
    })?;
    rows.map(|row| row.map_err(StoreError::from)).collect()
}

/// The beginning of a question on one line.
fn title_of(question: &str) -> String {
    let line = question.split_whitespace().take(TITLE_CHARS).collect::<Vec<_>>().join(" ");
    let mut title: String = line.chars().take(TITLE_CHARS).collect();
    if title.len() < line.len() {
        title.push('…');
    }
    title
}

/// All sealed keys.
pub fn credentials(db: &Connection) -> Result<Vec<(JobId, Vec<u8>)>, StoreError> {
    let mut statement = db.prepare("SELECT job, sealed FROM credentials")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))?;
    rows.map(|row| row.map_err(StoreError::from).and_then(|(job, sealed)| Ok((JobId(uuid(&job)?), sealed)))).collect()
}

const CONVERSATION: &str = "id, owner, title, created_at, updated_at, \
    (SELECT coalesce(max(idx) + 1, 0) FROM messages WHERE conversation = id)";

fn conversation_row(row: &Row<'_>) -> Result<ConversationRow, StoreError> {
    Ok(ConversationRow {
        id: uuid(&row.get::<_, Vec<u8>>(0)?)?,
        owner: row.get(1)?,
        title: row.get(2)?,
        created_at: time(row.get(3)?),
        updated_at: time(row.get(4)?),
        messages: row.get(5)?,
    })
}

/// One conversation.
pub fn conversation(db: &Connection, id: Uuid) -> Result<Option<ConversationRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {CONVERSATION} FROM conversations WHERE id = ?"))?;
    let mut rows = statement.query([bytes(&id)])?;
    rows.next()?.map(conversation_row).transpose()
}

/// How many an owner has.
pub fn conversation_count(db: &Connection, owner: &str) -> Result<u64, StoreError> {
    let mut statement = db.prepare_cached("SELECT count(*) FROM conversations WHERE owner = ?")?;
    let count: i64 = statement.query_row([owner], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Conversations of `owner`, latest first, below `before`, with `search` in their title or a message.
pub fn conversations(
    db: &Connection,
    owner: &str,
    search: Option<&str>,
    before: Option<(Timestamp, Uuid)>,
    limit: usize,
) -> Result<Vec<ConversationRow>, StoreError> {
    let pattern = search.map(|text| {
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        format!("%{escaped}%")
    });
    let (at, id) = before.unwrap_or((Timestamp(u64::MAX), Uuid::max()));
    let sql = format!(
        "SELECT {CONVERSATION} FROM conversations WHERE owner = ?1 AND (updated_at, id) < (?2, ?3)
         AND (?4 IS NULL OR title LIKE ?4 ESCAPE '\\' OR EXISTS
              (SELECT 1 FROM messages WHERE conversation = id AND text LIKE ?4 ESCAPE '\\'))
         ORDER BY updated_at DESC, id DESC LIMIT ?5"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![owner, int(at.0), bytes(&id), pattern, int(limit as u64)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(conversation_row(row)?);
    }
    Ok(found)
}

/// Messages of a conversation from `from` on.
pub fn messages(db: &Connection, id: Uuid, from: u32, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
    let sql = "SELECT idx, text, job, created_at, answer FROM messages WHERE conversation = ? AND idx >= ?
               ORDER BY idx LIMIT ?";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![bytes(&id), from, int(limit as u64)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(MessageRow {
            index: row.get(0)?,
            text: row.get(1)?,
            job: JobId(uuid(&row.get::<_, Vec<u8>>(2)?)?),
            created_at: time(row.get(3)?),
            answer: row.get(4)?,
        });
    }
    Ok(found)
}

/// What was said before the message `before`: as many of the latest turns as `tokens` hold. Turns that came to no text are
/// left out, and not counted.
pub fn history(db: &Connection, id: Uuid, before: u32, tokens: u64) -> Result<History, StoreError> {
    let sql =
        "SELECT q.text, a.text FROM messages a JOIN messages q ON q.conversation = a.conversation AND q.idx = a.idx - 1
               WHERE a.conversation = ? AND a.idx < ? AND a.idx % 2 = 1
               ORDER BY a.idx DESC LIMIT ?";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![bytes(&id), before, HISTORY_MAX])?;
    let mut history = History::default();
    let mut left = Some(tokens);
    while let Some(row) = rows.next()? {
        let (question, answer): (String, String) = (row.get(0)?, row.get(1)?);
        if answer.trim().is_empty() {
            continue;
        }
        let size = tokens::estimate(&question) + tokens::estimate(&answer);
        left = left.and_then(|left| left.checked_sub(size));
        match left {
            Some(_) => history.turns.push((question, answer)),
            None => history.dropped += 1,
        }
    }
    history.turns.reverse();
    Ok(history)
}

/// Deletes what the ledger has of days before `day`.
pub fn prune_usage(db: &Connection, day: u32) -> Result<usize, StoreError> {
    Ok(db.prepare_cached("DELETE FROM usage WHERE day < ?")?.execute([day])?)
}

/// Deletes a slice of conversations that nobody has touched since `cutoff`.
pub fn prune(db: &Connection, cutoff: Timestamp, slice: i64) -> Result<usize, StoreError> {
    let old = "SELECT id FROM conversations WHERE updated_at < ?1 ORDER BY updated_at LIMIT ?2";
    let messages = db
        .prepare_cached(&format!("DELETE FROM messages WHERE conversation IN ({old})"))?
        .execute(params![int(cutoff.0), slice])?;
    let conversations = db
        .prepare_cached(&format!("DELETE FROM conversations WHERE id IN ({old})"))?
        .execute(params![int(cutoff.0), slice])?;
    Ok(messages + conversations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_beginning_of_the_question_on_one_line() {
        assert_eq!(title_of("  Why is\n the\tsea salty? "), "Why is the sea salty?");
        let title = title_of(&"ñandú ".repeat(50));
        assert_eq!(title.chars().count(), TITLE_CHARS + 1);
        assert!(title.ends_with('…'));
        assert_eq!(title_of(" \n"), "");
    }
}
