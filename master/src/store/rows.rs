//! Rows of SQL to records and back: the order of columns is spelt here and in `writes.rs` only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::rest::{JobError, JobState};
use flota_proto::{JobId, Kind, Timestamp, WorkerId};
use rusqlite::Row;
use uuid::Uuid;

use super::StoreError;
use crate::core::record::{JobHead, JobRow, Rest, StoredJob, UnitRow};

/// The columns that [`stored_job`] reads, in its order.
pub const JOB_COLUMNS: &str = "seq, id, fingerprint, kind, queue, project, owner, labels, max_attempts, timeout_ms, \
    deadline, created_at, rest, state, priority, run_at, started_at, finished_at, failures, waits_for, next_index, \
    next_from, units_done, workers, u_state, u_attempt, u_failures, u_worker, u_assigned_at, u_run_at, u_tries, \
    events, next_event, error, result, suspect, cached";

/// The columns that [`unit`] reads, in its order.
pub const UNIT_COLUMNS: &str =
    "seq, idx, from_, to_, state, attempt, failures, worker, assigned_at, run_at, tries, suspect";

/// As SQL keeps it: never above 2⁶³.
pub fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A point in time as SQL keeps it.
pub fn time(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| int(at.0))
}

/// A state as SQL keeps it.
pub fn state_number(state: JobState) -> i64 {
    state as i64
}

fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn state(number: i64) -> Result<JobState, StoreError> {
    usize::try_from(number)
        .ok()
        .and_then(|index| JobState::ALL.get(index).copied())
        .ok_or_else(|| StoreError::Unreadable(format!("the unknown state {number}")))
}

fn json<T: serde::de::DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    // Its own message may quote what it has read.
    serde_json::from_str(text)
        .map_err(|error| StoreError::Unreadable(format!("bad {column} ({:?} error)", error.classify()).to_lowercase()))
}

/// A job from [`JOB_COLUMNS`], without the units of one that has several. Where not all of it can be read, what there is.
pub fn stored_job(row: &Row<'_>) -> Result<StoredJob, StoreError> {
    match whole_job(row) {
        Err(StoreError::Unreadable(why)) => damaged_job(row, why),
        job => job,
    }
}

/// What can still be read of a job, for those who ask for it: it can't go on.
fn damaged_job(row: &Row<'_>, why: String) -> Result<StoredJob, StoreError> {
    let number = |index: usize| row.get::<_, Option<i64>>(index).ok().flatten();
    let time = |index: usize| number(index).map(|ms| Timestamp(uint(ms)));
    let text = |index: usize| row.get::<_, Option<String>>(index).ok().flatten();
    let head = JobHead {
        id: job_id(row)?,
        fingerprint: None,
        // One has to stand there.
        kind: text(3).and_then(|kind| kind.parse().ok()).unwrap_or(Kind::Echo),
        queue: text(4).unwrap_or_default().into(),
        project: text(5).map(Arc::from),
        owner: text(6).unwrap_or_default().into(),
        labels: text(7).and_then(|labels| serde_json::from_str(&labels).ok()).map(Arc::new),
        max_attempts: number(8).map_or(1, small),
        timeout_ms: number(9).map_or(0, uint),
        created_at: time(11).unwrap_or_default(),
        rest: Rest::default(),
    };
    let row = JobRow {
        seq: uint(row.get(0)?),
        head: None,
        state: number(13).and_then(|number| state(number).ok()).unwrap_or(JobState::Pending),
        priority: number(14).and_then(|number| u8::try_from(number).ok()).unwrap_or(5),
        run_at: None,
        deadline: None,
        started_at: time(16),
        finished_at: time(17),
        failures: number(18).map_or(0, small),
        waits_for: Vec::new(),
        next_index: number(20).map_or(0, small),
        next_from: number(21).map_or(0, uint),
        units_done: number(22).map_or(0, uint),
        workers: text(23).and_then(|workers| serde_json::from_str(&workers).ok()).unwrap_or_default(),
        unit: own_unit(row).unwrap_or_else(|_| Some(lost_unit(number(25).map_or(0, uint)))),
        events: text(31).unwrap_or_default(),
        next_event: number(32).map_or(1, uint),
        error: text(33).and_then(|error| serde_json::from_str(&error).ok()),
        result: row.get::<_, Option<Vec<u8>>>(34).ok().flatten().map(Bytes::from),
        suspect: row.get(35).unwrap_or(false),
        cached: false,
    };
    Ok(StoredJob { head, row, units: Vec::new(), damaged: Some(format!("its row: {why}")) })
}

/// Only its number is known, which is never given again.
fn lost_unit(attempt: u64) -> UnitRow {
    UnitRow {
        seq: 0,
        index: 0,
        from: 0,
        to: 1,
        state: JobState::Failed,
        attempt,
        failures: 0,
        worker: None,
        assigned_at: None,
        run_at: None,
        tries: String::new(),
        output: None,
        suspect: false,
    }
}

fn job_id(row: &Row<'_>) -> Result<JobId, StoreError> {
    let id = Uuid::from_slice(row.get_ref(1)?.as_blob().unwrap_or_default());
    id.map(JobId).map_err(|_| StoreError::Other("a row has a bad job id".into()))
}

fn whole_job(row: &Row<'_>) -> Result<StoredJob, StoreError> {
    let get_time = |index: usize| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|ms| Timestamp(uint(ms))))
    };
    let text = |index: usize| row.get::<_, Option<String>>(index).map_err(StoreError::from);
    let kind: String = row.get(3)?;
    let labels: Option<BTreeMap<String, String>> = text(7)?.map(|labels| json("labels", &labels)).transpose()?;
    let seq = uint(row.get(0)?);
    let head = JobHead {
        id: job_id(row)?,
        fingerprint: row.get::<_, Option<Vec<u8>>>(2)?.and_then(|bytes| bytes.try_into().ok()),
        kind: kind.parse().map_err(|_| StoreError::Unreadable("an unknown kind".into()))?,
        queue: row.get::<_, String>(4)?.into(),
        project: text(5)?.map(Arc::from),
        owner: row.get::<_, String>(6)?.into(),
        labels: labels.map(Arc::new),
        max_attempts: small(row.get(8)?),
        timeout_ms: uint(row.get(9)?),
        created_at: Timestamp(uint(row.get(11)?)),
        rest: text(12)?.map_or_else(|| Ok(Rest::default()), |rest| json("rest", &rest))?,
    };
    let error: Option<JobError> = text(33)?.map(|error| json("error", &error)).transpose()?;
    let workers: Option<Vec<WorkerId>> = text(23)?.map(|workers| json("workers", &workers)).transpose()?;
    let waits_for: Option<Vec<JobId>> = text(19)?.map(|ids| json("waits_for", &ids)).transpose()?;
    let changing = JobRow {
        seq,
        head: None,
        state: state(row.get(13)?)?,
        priority: u8::try_from(row.get::<_, i64>(14)?).unwrap_or(5),
        run_at: get_time(15)?,
        deadline: get_time(10)?,
        started_at: get_time(16)?,
        finished_at: get_time(17)?,
        failures: small(row.get(18)?),
        waits_for: waits_for.unwrap_or_default(),
        next_index: small(row.get(20)?),
        next_from: uint(row.get(21)?),
        units_done: uint(row.get(22)?),
        workers: workers.unwrap_or_default(),
        unit: own_unit(row)?,
        events: row.get(31)?,
        next_event: uint(row.get(32)?),
        error,
        result: row.get::<_, Option<Vec<u8>>>(34)?.map(Bytes::from),
        suspect: row.get(35)?,
        cached: row.get::<_, Option<bool>>(36)?.unwrap_or(false),
    };
    Ok(StoredJob { head, row: changing, units: Vec::new(), damaged: None })
}

/// The unit of a job that is one.
fn own_unit(row: &Row<'_>) -> Result<Option<UnitRow>, StoreError> {
    let Some(number) = row.get::<_, Option<i64>>(24)? else { return Ok(None) };
    let get_time = |index: usize| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|ms| Timestamp(uint(ms))))
    };
    Ok(Some(UnitRow {
        seq: uint(row.get(0)?),
        state: state(number)?,
        failures: small(row.get(26)?),
        worker: row.get::<_, Option<String>>(27)?.and_then(|worker| worker.parse().ok()),
        assigned_at: get_time(28)?,
        run_at: get_time(29)?,
        tries: row.get::<_, Option<String>>(30)?.unwrap_or_default(),
        ..lost_unit(uint(row.get(25)?))
    }))
}

/// A unit from [`UNIT_COLUMNS`] and, where asked, `output` behind them.
pub fn unit(row: &Row<'_>, output: bool) -> Result<UnitRow, StoreError> {
    let get_time = |index: usize| -> Result<Option<Timestamp>, StoreError> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|ms| Timestamp(uint(ms))))
    };
    Ok(UnitRow {
        seq: uint(row.get(0)?),
        index: small(row.get(1)?),
        from: uint(row.get(2)?),
        to: uint(row.get(3)?),
        state: state(row.get(4)?)?,
        attempt: uint(row.get(5)?),
        failures: small(row.get(6)?),
        worker: row.get::<_, Option<String>>(7)?.and_then(|worker| worker.parse().ok()),
        assigned_at: get_time(8)?,
        run_at: get_time(9)?,
        tries: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
        suspect: row.get(11)?,
        output: if output { row.get::<_, Option<Vec<u8>>>(12)?.map(Bytes::from) } else { None },
    })
}
