//! The figures, for people and for programs.

use std::time::Duration;

use flota_proto::rest::Fleet;
use serde::Serialize;

use super::cpu::Usage;
use super::disk::Disk;
use super::latency::Percentiles;
use super::load::Load;
use super::verify::Tally;
use crate::args::Dispatch;
use crate::failure::Failure;
use crate::output::{Hue, Out, thousands};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    url: String,
    run: String,
    machine: Machine,
    workers: u64,
    jobs: u64,
    batch: u64,
    connections: u64,
    submitted_seconds: f64,
    completed_seconds: f64,
    read_back_seconds: f64,
    /// Submitted, completed and read back.
    jobs_per_second: f64,
    /// Without reading back.
    completed_per_second: f64,
    batches_refused: u64,
    checked: Tally,
    cpu: Vec<Usage>,
    latency: Option<Percentiles>,
    disk: Option<Disk>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    cpu: String,
}

impl Machine {
    fn this() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cores, cpu: model.map_or_else(|| "unknown CPU".into(), |(_, name)| name.trim().to_owned()) }
    }
}

impl Report {
    #[allow(clippy::too_many_arguments)] // each is measured on its own and only named here
    pub fn new(
        url: &str,
        args: &Dispatch,
        fleet: &Fleet,
        run: String,
        load: Load,
        cpu: Vec<Usage>,
        latency: Option<Percentiles>,
        disk: Option<Disk>,
    ) -> Self {
        let rate = |time: Duration| args.jobs as f64 / time.as_secs_f64().max(f64::EPSILON);
        Self {
            url: url.to_owned(),
            run,
            machine: Machine::this(),
            workers: fleet.workers.iter().filter(|(state, _)| state.as_str() != "offline").map(|(_, n)| n).sum(),
            jobs: args.jobs,
            batch: args.batch,
            connections: args.connections,
            submitted_seconds: load.submitted.as_secs_f64(),
            completed_seconds: load.completed.as_secs_f64(),
            read_back_seconds: load.read_back.as_secs_f64(),
            jobs_per_second: rate(load.read_back),
            completed_per_second: rate(load.completed),
            batches_refused: load.refused,
            checked: load.tally,
            cpu,
            latency,
            disk,
        }
    }
}

/// Prints it; an unchecked or wrong result is a failure.
pub fn print(out: &Out, report: &Report) -> Result<(), Failure> {
    if out.json {
        out.json(report)?;
    } else {
        out.pairs(&rows(out, report))?;
    }
    if report.checked.all_right() && report.checked.right == report.jobs {
        return Ok(());
    }
    let Tally { right, not_completed, doubled, wrong, missing } = report.checked;
    Err(Failure::Job(format!(
        "of {} jobs {right} are right, {not_completed} did not complete, {doubled} came twice, {wrong} have a wrong \
         value, {missing} are missing",
        report.jobs
    )))
}

fn rows(out: &Out, r: &Report) -> Vec<(&'static str, String)> {
    let since = |seconds: f64| format!("after {seconds:.2} s ({} /s)", thousands((r.jobs as f64 / seconds) as u64));
    let throughput = format!("{} jobs/s", thousands(r.jobs_per_second as u64));
    let mut rows = vec![
        ("machine", format!("{} cores, {}", r.machine.cores, r.machine.cpu)),
        ("fleet", format!("{}, {} workers", r.url, r.workers)),
        (
            "jobs",
            format!("{} in batches of {} over {} connections", thousands(r.jobs), thousands(r.batch), r.connections),
        ),
        ("submitted", since(r.submitted_seconds)),
        ("completed", since(r.completed_seconds)),
        ("read back", format!("{}, {} right", since(r.read_back_seconds), thousands(r.checked.right))),
        ("throughput", format!("{}, from the first request to the last result", out.paint(Hue::Bold, throughput))),
    ];
    if r.batches_refused > 0 {
        rows.push(("refused", format!("{} batches were sent again, the fleet was full", r.batches_refused)));
    }
    if let Some(latency) = &r.latency {
        rows.push(("latency", format!("{} (of {} lone jobs)", percentiles(latency), latency.samples)));
    }
    if let Some(disk) = &r.disk {
        let place = disk.directory.display();
        rows.push(("disk commit", format!("{} (4 KiB and fdatasync in {place})", percentiles(&disk.commit))));
    }
    for usage in &r.cpu {
        let seconds = usage.user_seconds + usage.system_seconds;
        let each = seconds * 1e6 / r.jobs as f64;
        rows.push(("CPU", format!("{}: {seconds:.2} s, {each:.1} µs a job", usage.name)));
    }
    rows
}

fn percentiles(p: &Percentiles) -> String {
    format!("p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, at most {:.2} ms", p.p50_ms, p.p95_ms, p.p99_ms, p.max_ms)
}
