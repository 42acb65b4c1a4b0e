//! Sessions in SQL.

use flota_proto::{JobId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::StoreError;
use super::rows::int;
use crate::session::{Followed, SessionChange, SessionKey};

/// Sessions deleted at once.
const PRUNE_SLICE: u64 = 100;

fn bytes(id: &Uuid) -> &[u8] {
    id.as_bytes().as_slice()
}

/// Writes one change.
pub fn write(db: &Connection, change: &SessionChange, now: Timestamp) -> Result<(), StoreError> {
    match change {
        SessionChange::Begin(key) => begin(db, key, now)?,
        SessionChange::Follow(key, followed) => {
            begin(db, key, now)?;
            let sql = "INSERT INTO follows VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
                       after = excluded.after, question = max(question, excluded.question)";
            let after = followed.after.map(int);
            db.prepare_cached(sql)?.execute(params![
                bytes(&key.id),
                bytes(&followed.job.0),
                after,
                followed.question
            ])?;
        }
        SessionChange::Told(id, job) => {
            let sql = "DELETE FROM follows WHERE session = ? AND job = ?";
            db.prepare_cached(sql)?.execute([bytes(id), bytes(&job.0)])?;
        }
        SessionChange::Seen(id, told) => {
            let sql = "UPDATE sessions SET seen_at = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![int(now.0), bytes(id)])?;
            for (job, after) in told {
                let sql = "UPDATE follows SET after = ? WHERE session = ? AND job = ?";
                db.prepare_cached(sql)?.execute(params![int(*after), bytes(id), bytes(&job.0)])?;
            }
        }
        SessionChange::Forget(id) => {
            db.prepare_cached("DELETE FROM follows WHERE session = ?")?.execute([bytes(id)])?;
            db.prepare_cached("DELETE FROM sessions WHERE id = ?")?.execute([bytes(id)])?;
        }
    }
    Ok(())
}

/// A session keeps the secret that it began with.
fn begin(db: &Connection, key: &SessionKey, now: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO sessions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seen_at = excluded.seen_at";
    db.prepare_cached(sql)?.execute(params![bytes(&key.id), key.digest, int(now.0)])?;
    Ok(())
}

/// The digest of a session's secret.
pub fn digest(db: &Connection, id: Uuid) -> Result<Option<[u8; 32]>, StoreError> {
    let mut statement = db.prepare_cached("SELECT secret FROM sessions WHERE id = ?")?;
    Ok(statement.query_row([bytes(&id)], |row| row.get(0)).optional()?)
}

/// What a session is to be told, in the order of the jobs' ids.
pub fn follows(db: &Connection, id: Uuid) -> Result<Vec<Followed>, StoreError> {
    let sql = "SELECT job, after, question FROM follows WHERE session = ? ORDER BY job";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([bytes(&id)], |row| {
        let after = row.get::<_, Option<i64>>(1)?.and_then(|after| u64::try_from(after).ok());
        Ok((row.get::<_, [u8; 16]>(0)?, after, row.get(2)?))
    })?;
    let followed = |(job, after, question)| Followed { job: JobId(Uuid::from_bytes(job)), after, question };
    rows.map(|row| row.map(followed).map_err(StoreError::from)).collect()
}

/// Deletes a slice of the sessions that nobody has used since `cutoff`, and of the oldest beyond `most`.
pub fn prune(db: &Connection, cutoff: Timestamp, most: u64) -> Result<usize, StoreError> {
    let old = "SELECT id FROM sessions WHERE seen_at < ?1 ORDER BY seen_at LIMIT ?2";
    let beyond = "SELECT id FROM sessions ORDER BY seen_at DESC LIMIT ?2 OFFSET ?1";
    let mut deleted = 0;
    for (which, bound) in [(old, cutoff.0), (beyond, most)] {
        for (table, column) in [("follows", "session"), ("sessions", "id")] {
            let sql = format!("DELETE FROM {table} WHERE {column} IN ({which})");
            deleted += db.prepare_cached(&sql)?.execute(params![int(bound), int(PRUNE_SLICE)])?;
        }
    }
    Ok(deleted)
}
