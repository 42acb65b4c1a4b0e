//! `flota jobs …`

use flota_proto::JobId;
use flota_proto::rest::{Audit, Job, JobEvent, Page, Priority, RetriedJobs, RetryJobs, Unit};
use reqwest::Method;
use serde_json::json;
use serde_json::value::RawValue;

use super::keep_first;
use crate::api::{Api, with_query};
use crate::args::{Jobs, JobsCommand, JobsFilter, JobsList, JobsRetry};
use crate::failure::Failure;
use crate::follow::{self, what_happens};
use crate::output::{Hue, Out, ago, between};
use crate::sse::Events;

/// The most that the master gives at once.
const PAGE: u32 = 500;
/// Longer results are cut on a terminal.
const RESULT_CHARS_MAX: usize = 2000;

pub async fn run(api: &Api, out: &Out, args: Jobs) -> Result<(), Failure> {
    match args.command.unwrap_or(JobsCommand::List(args.list)) {
        JobsCommand::List(filter) => list(api, out, &filter).await,
        JobsCommand::Show { id } => show(api, out, id).await,
        JobsCommand::Audit { id } => audit(api, out, id).await,
        JobsCommand::Watch { id } => follow::unless_interrupted(watch(api, out, id)).await,
        JobsCommand::Cancel { ids } => tell(api, out, "cancel", &ids).await,
        JobsCommand::Retry(which) if which.ids.is_empty() => retry_many(api, out, which).await,
        JobsCommand::Retry(which) => tell(api, out, "retry", &which.ids).await,
        JobsCommand::Priority { id, priority } => {
            let body = json!({"priority": Priority(priority)});
            let request = api.request(Method::PATCH, &format!("/jobs/{id}")).json(&body);
            told(api, out, &api.json::<Box<RawValue>>(request).await?)
        }
    }
}

async fn list(api: &Api, out: &Out, filter: &JobsList) -> Result<(), Failure> {
    let mut wanted = filter.limit.unwrap_or(50);
    let mut items: Vec<Box<RawValue>> = Vec::new();
    let mut cursor = None;
    loop {
        let query = query(filter, wanted.min(PAGE), cursor.as_deref());
        let page: Page<Box<RawValue>> = api.get(&with_query("/jobs", &query)).await?;
        wanted = wanted.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        items.extend(page.items);
        cursor = page.next_cursor;
        if wanted == 0 || cursor.is_none() {
            break;
        }
    }
    if out.json {
        return out.json(&Page { items, next_cursor: cursor });
    }
    let jobs: Vec<Job> = items.iter().map(|item| api.parse(item.get().as_bytes())).collect::<Result<_, _>>()?;
    table(out, &jobs, cursor.is_some())
}

fn query(filter: &JobsList, limit: u32, cursor: Option<&str>) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", limit.to_string())];
    let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
    let JobsFilter { kind, queue, project, label, owner, code } = filter.filter.clone();
    add("state", filter.state.map(|state| state.as_str().to_owned()));
    add("kind", kind.map(|kind| kind.to_string()));
    add("queue", queue);
    add("project", project);
    add("label", label.map(|(name, value)| format!("{name}={value}")));
    add("owner", owner);
    add("code", code);
    add("cursor", cursor.map(str::to_owned));
    query
}

fn table(out: &Out, jobs: &[Job], more: bool) -> Result<(), Failure> {
    if jobs.is_empty() {
        out.hint("No jobs. Submit one with: flota submit echo --payload '{\"value\": 1}' --wait");
        return Ok(());
    }
    let mut table = out.table(&["JOB", "KIND", "STATE", "PRIO", "DONE", "WORKERS", "CREATED", "TOOK"]);
    for job in jobs {
        let workers: Vec<&str> = job.workers.iter().map(|worker| worker.as_str()).collect();
        let done = if job.state.ended() { String::new() } else { format!("{:.0} %", job.progress.fraction * 100.0) };
        table.add_row([
            out.cell(Hue::Plain, job.id),
            out.cell(Hue::Plain, job.kind),
            out.cell(Hue::of_job(job.state), job.state.as_str()),
            out.cell(Hue::Plain, job.priority),
            out.cell(Hue::Plain, done),
            out.cell(Hue::Plain, workers.join(" ")),
            out.cell(Hue::Dim, ago(job.created_at)),
            out.cell(Hue::Dim, between(job.started_at, job.finished_at).unwrap_or_default()),
        ]);
    }
    out.line(table.trim_fmt())?;
    if more {
        out.hint(format!("There are more: --limit {}, or narrow it with --state, --kind, --label.", jobs.len() * 4));
    }
    Ok(())
}

async fn show(api: &Api, out: &Out, id: JobId) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, &format!("/jobs/{id}"))).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    let job: Job = api.parse(&raw)?;
    head(out, &job)?;
    let units: Page<Unit> = api.get(&format!("/jobs/{id}/units?limit=100")).await?;
    units_table(out, &units)?;
    if let Some(result) = &job.result {
        out.line(format!("\n{}", out.paint(Hue::Dim, "result")))?;
        out.line(shortened(result.get(), out.terminal))?;
    }
    Ok(())
}

/// What `suspect` means.
const SUSPECT: &str = "a worker that computed some of it has sent wrong results since: submit it again to be sure";

fn head(out: &Out, job: &Job) -> Result<(), Failure> {
    let labels: Vec<String> = job.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let workers: Vec<&str> = job.workers.iter().map(|worker| worker.as_str()).collect();
    let state = out.paint(Hue::of_job(job.state), job.state.as_str());
    let progress = format!("{:.0} %", job.progress.fraction * 100.0);
    let rows = [
        ("job", out.paint(Hue::Bold, job.id)),
        ("kind", job.kind.to_string()),
        ("state", if job.state.ended() { state } else { format!("{state}, {progress}") }),
        ("waiting", job.waiting.as_ref().map(|waiting| waiting.detail.clone()).unwrap_or_default()),
        ("cached", if job.cached { "the result of an earlier job".to_owned() } else { String::new() }),
        ("error", job.error.as_ref().map(|error| format!("{} ({})", error.message, error.code)).unwrap_or_default()),
        ("priority", format!("{} in queue {}", job.priority, job.queue)),
        ("project", job.project.clone().unwrap_or_default()),
        ("owner", job.owner.clone()),
        ("labels", labels.join(", ")),
        ("created", format!("{} ({})", job.created_at.to_rfc3339(), ago(job.created_at))),
        ("waited", between(Some(job.created_at), job.started_at).unwrap_or_default()),
        ("took", between(job.started_at, job.finished_at).unwrap_or_default()),
        ("failures", format!("{} of {}", job.failures, job.max_attempts)),
        ("workers", workers.join(", ")),
        ("suspect", if job.suspect { out.paint(Hue::Red, SUSPECT) } else { String::new() }),
    ];
    out.pairs(&rows.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
}

fn units_table(out: &Out, page: &Page<Unit>) -> Result<(), Failure> {
    if page.items.is_empty() {
        return Ok(());
    }
    let mut table = out.table(&["UNIT", "STATE", "ATTEMPT", "WORKER", "OUTCOME", "TOOK", "ERROR"]);
    for unit in &page.items {
        let index = unit.unit_id.index;
        if unit.attempts.is_empty() {
            let state = out.cell(Hue::of_job(unit.state), unit.state.as_str());
            table.add_row([out.cell(Hue::Plain, index), state]);
        }
        for attempt in &unit.attempts {
            let outcome = attempt.outcome.map_or("", |outcome| outcome.as_str());
            table.add_row([
                out.cell(Hue::Plain, index),
                out.cell(Hue::of_job(unit.state), unit.state.as_str()),
                out.cell(Hue::Plain, attempt.attempt),
                out.cell(Hue::Plain, &attempt.worker_id),
                out.cell(Hue::Plain, outcome),
                out.cell(Hue::Dim, between(Some(attempt.started_at), attempt.finished_at).unwrap_or_default()),
                out.cell(Hue::Red, attempt.error.as_ref().map_or("", |error| &error.message)),
            ]);
        }
    }
    out.line(format!("\n{}", table.trim_fmt()))?;
    if page.next_cursor.is_some() {
        out.hint("There are more units: see GET /api/v1/jobs/{id}/units.");
    }
    Ok(())
}

fn shortened(text: &str, terminal: bool) -> String {
    if !terminal || text.chars().count() <= RESULT_CHARS_MAX {
        return text.to_owned();
    }
    let cut: String = text.chars().take(RESULT_CHARS_MAX).collect();
    format!("{cut}…\n({} characters; all of it with --json)", text.chars().count())
}

async fn audit(api: &Api, out: &Out, id: JobId) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, &format!("/jobs/{id}/audit?limit=500"))).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    let audit: Audit = api.parse(&raw)?;
    let verdict = match (audit.exact, audit.state.ended()) {
        (true, _) => "everything was computed exactly once".to_owned(),
        (false, false) => format!("{} are still to be computed, {} were computed twice", audit.missing, audit.repeated),
        (false, true) => format!("{} are missing, {} were computed twice", audit.missing, audit.repeated),
    };
    let hue = if audit.repeated > 0 { Hue::Red } else { Hue::Bold };
    let [from, to] = audit.range;
    out.pairs(&[
        ("job", format!("{}  {}  {}", audit.job_id, audit.kind, audit.state.as_str())),
        ("range", format!("{from}..{to}, {} of {} computed", audit.covered, to - from)),
        ("audit", out.paint(hue, verdict)),
    ])?;
    if audit.suspect > 0 {
        out.line(out.paint(Hue::Red, format!("{} are suspect: {SUSPECT}", audit.suspect)))?;
    }
    for (name, ranges) in [("missing", &audit.gaps), ("twice", &audit.overlaps)] {
        for [from, to] in ranges.iter().take(20) {
            out.line(format!("{name}  {from}..{to}"))?;
        }
    }
    let mut table = out.table(&["WORKER", "UNITS", "COMPUTED", "SUSPECT"]);
    for worker in &audit.workers {
        table.add_row([
            out.cell(Hue::Plain, &worker.worker_id),
            out.cell(Hue::Plain, worker.units),
            out.cell(Hue::Plain, worker.computed),
            out.cell(if worker.suspect > 0 { Hue::Red } else { Hue::Plain }, worker.suspect),
        ]);
    }
    out.line(table.trim_fmt())
}

async fn watch(api: &Api, out: &Out, id: JobId) -> Result<(), Failure> {
    let mut events = Events::of(api, id);
    let bar = out.bar(1000, "{bar:32.cyan} {percent:>3} %  {msg}");
    while let Some(event) = events.next().await? {
        match event.r#type.as_str() {
            "delta" if !out.json => {}
            "pending" | "blocked" | "scheduled" if !out.json => {
                bar.suspend(|| out.line(line_of(out, &event)))?;
                let job: Job = api.get(&format!("/jobs/{id}")).await?;
                bar.suspend(|| follow::tell_why_it_waits(out, &job));
            }
            "progress" if !out.json && !bar.is_hidden() => {
                let fraction = event.data.get("fraction").and_then(serde_json::Value::as_f64).unwrap_or_default();
                bar.set_position((fraction * 1000.0) as u64);
                bar.set_message(text_of(&event, "note"));
            }
            _ if out.json => out.json(&event)?,
            _ => bar.suspend(|| out.line(line_of(out, &event)))?,
        }
    }
    bar.finish_and_clear();
    let job: Job = api.get(&format!("/jobs/{id}")).await?;
    if !out.json {
        out.hint(what_happens(&job));
        if let Some(result) = &job.result {
            out.line(shortened(result.get(), out.terminal))?;
        }
    }
    follow::verdict(&job)
}

fn line_of(out: &Out, event: &JobEvent) -> String {
    let hue = event.r#type.parse().map_or(Hue::Plain, Hue::of_job);
    let worker = text_of(event, "worker_id");
    let fraction = event.data.get("fraction").and_then(serde_json::Value::as_f64);
    let details = [
        fraction.map(|fraction| format!("{:.0} %", fraction * 100.0)).unwrap_or_default(),
        if worker.is_empty() { worker } else { format!("on {worker}, attempt {}", event.attempt) },
        text_of(event, "note"),
    ];
    let details: Vec<String> = details.into_iter().filter(|text| !text.is_empty()).collect();
    let time = out.paint(Hue::Dim, event.timestamp.to_rfc3339());
    format!("{time}  {}  {}", out.paint(hue, format!("{:10}", event.r#type)), details.join(", ")).trim_end().to_owned()
}

fn text_of(event: &JobEvent, field: &str) -> String {
    event.data.get(field).and_then(|text| text.as_str()).unwrap_or_default().to_owned()
}

async fn retry_many(api: &Api, out: &Out, which: JobsRetry) -> Result<(), Failure> {
    let JobsFilter { kind, queue, project, label, owner, code } = which.filter;
    let mut wanted = RetryJobs {
        state: which.state.into_iter().collect(),
        kind: kind.map(|kind| kind.as_str().to_owned()),
        queue,
        project,
        label: label.map(|(name, value)| format!("{name}={value}")),
        owner,
        code,
        dry_run: which.dry_run,
        cursor: None,
    };
    let mut total = RetriedJobs { matched: 0, retried: 0, refused: Vec::new(), next_cursor: None };
    loop {
        let done: RetriedJobs = api.post("/jobs/retry", Some(&wanted)).await?;
        total.matched += done.matched;
        total.retried += done.retried;
        total.refused.extend(done.refused);
        wanted.cursor = done.next_cursor;
        if wanted.cursor.is_none() {
            break;
        }
    }
    if out.json {
        return out.json(&total);
    }
    for refused in &total.refused {
        out.line(format!("{}  not started: {}", refused.id, refused.error.detail))?;
    }
    match which.dry_run {
        true => out.line(format!("{} jobs would be started again", total.matched)),
        false => out.line(format!("{} of {} jobs started again", total.retried, total.matched)),
    }
}

async fn tell(api: &Api, out: &Out, what: &str, ids: &[JobId]) -> Result<(), Failure> {
    let mut refused = Ok(());
    for id in ids {
        let answer = api.post::<Box<RawValue>>(&format!("/jobs/{id}/{what}"), None::<&()>).await;
        keep_first(out, &mut refused, answer.and_then(|raw| told(api, out, &raw)))?;
    }
    refused
}

fn told(api: &Api, out: &Out, raw: &RawValue) -> Result<(), Failure> {
    if out.json {
        return out.line(raw.get());
    }
    let job: Job = api.parse(raw.get().as_bytes())?;
    let state = out.paint(Hue::of_job(job.state), job.state.as_str());
    out.line(format!("{}  {state}, priority {}", job.id, job.priority))
}
