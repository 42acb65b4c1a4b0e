//! Records to rows of SQL: the order of columns is spelt here and in `rows.rs` only.

use rusqlite::{Connection, params, params_from_iter};

use super::StoreError;
use super::rows::{int, state_number, time};
use crate::core::record::{JobRow, UnitRow, WorkerRow};

/// Payloads up to this stand in the job's row.
const INLINE_PAYLOAD_BYTES_MAX: usize = 512;
/// A job, new or changed.
pub fn write_job(db: &Connection, job: &JobRow) -> Result<(), StoreError> {
    let json = |text: Result<String, serde_json::Error>| text.map_err(|error| StoreError::Other(error.to_string()));
    let waits_for = match &job.waits_for[..] {
        [] => None,
        ids => Some(json(serde_json::to_string(ids))?),
    };
    let workers = match &job.workers[..] {
        [] => None,
        workers => Some(json(serde_json::to_string(workers))?),
    };
    let error = job.error.as_ref().map(|error| json(serde_json::to_string(error))).transpose()?;
    let unit = job.unit.as_ref();
    let changing = params![
        state_number(job.state),
        job.priority,
        time(job.run_at),
        time(job.started_at),
        time(job.finished_at),
        job.failures,
        waits_for,
        job.next_index,
        int(job.next_from),
        int(job.units_done),
        workers,
        unit.map(|unit| state_number(unit.state)),
        unit.map(|unit| int(unit.attempt)),
        unit.map(|unit| unit.failures),
        unit.and_then(|unit| unit.worker.as_ref()).map(|worker| worker.as_str()),
        unit.and_then(|unit| time(unit.assigned_at)),
        unit.and_then(|unit| time(unit.run_at)),
        unit.map(|unit| unit.tries.as_str()).filter(|tries| !tries.is_empty()),
        job.events,
        int(job.next_event),
        error,
        job.result.as_deref(),
        time(job.deadline),
        job.suspect,
        job.cached.then_some(true),
        int(job.seq),
    ];
    let Some(head) = &job.head else {
        db.prepare_cached(
            "UPDATE jobs SET state = ?1, priority = ?2, run_at = ?3, started_at = ?4, finished_at = ?5, failures = ?6,
             waits_for = ?7, next_index = ?8, next_from = ?9, units_done = ?10, workers = ?11, u_state = ?12,
             u_attempt = ?13, u_failures = ?14, u_worker = ?15, u_assigned_at = ?16, u_run_at = ?17, u_tries = ?18,
             events = ?19, next_event = ?20, error = ?21, result = ?22, deadline = ?23, suspect = ?24,
             cached = ?25 WHERE seq = ?26",
        )?
        .execute(changing)?;
        return Ok(());
    };
    let (head, payload) = &**head;
    let labels = head.labels.as_ref().map(|labels| json(serde_json::to_string(&**labels))).transpose()?;
    let rest = (head.rest != Default::default()).then(|| json(serde_json::to_string(&head.rest))).transpose()?;
    let inline = (payload.len() <= INLINE_PAYLOAD_BYTES_MAX).then_some(&payload[..]);
    let id = head.id.0.as_bytes().as_slice();
    let fingerprint = head.fingerprint.as_ref().map(|digest| digest.as_slice());
    let fixed = params![
        id,
        fingerprint,
        head.kind.as_str(),
        &*head.queue,
        head.project.as_deref(),
        &*head.owner,
        labels,
        head.max_attempts,
        int(head.timeout_ms),
        int(head.created_at.0),
        rest,
        inline,
    ];
    db.prepare_cached(
        "INSERT INTO jobs (state, priority, run_at, started_at, finished_at, failures, waits_for, next_index,
         next_from, units_done, workers, u_state, u_attempt, u_failures, u_worker, u_assigned_at, u_run_at, u_tries,
         events, next_event, error, result, deadline, suspect, cached, seq, id, fingerprint, kind, queue, project, owner,
         labels, max_attempts, timeout_ms, created_at, rest, payload)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
         ?, ?, ?, ?)",
    )?
    .execute(params_from_iter(changing.iter().chain(fixed)))?;
    if inline.is_none() {
        db.prepare_cached("INSERT INTO payloads VALUES (?, ?)")?.execute(params![int(job.seq), &payload[..]])?;
    }
    Ok(())
}

/// A unit of a job of several.
pub fn write_unit(db: &Connection, unit: &UnitRow) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
        params![
            int(unit.seq),
            unit.index,
            int(unit.from),
            int(unit.to),
            state_number(unit.state),
            int(unit.attempt),
            unit.failures,
            unit.worker.as_ref().map(|worker| worker.as_str()),
            time(unit.assigned_at),
            time(unit.run_at),
            (!unit.tries.is_empty()).then_some(&unit.tries),
            unit.output.as_deref(),
            unit.suspect,
        ],
    )?;
    Ok(())
}

/// What has to be remembered of a worker.
pub fn write_worker(db: &Connection, worker: &WorkerRow) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        worker.id.as_str(),
        worker.simple,
        worker.language,
        worker.silent,
        worker.drain,
        worker.paused,
        int(worker.last_seen_at.0),
        worker.standing.as_ref().and_then(|standing| serde_json::to_string(standing).ok()),
    ])?;
    Ok(())
}
