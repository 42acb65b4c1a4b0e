//! `flota workers …`

use std::collections::BTreeMap;

use flota_proto::rest::{Page, Worker};
use flota_proto::{Class, WorkerId};
use reqwest::Method;
use serde_json::value::RawValue;

use super::keep_first;
use crate::api::{Api, segment};
use crate::args::{WorkersArgs, WorkersCommand};
use crate::failure::Failure;
use crate::output::{Hue, Out, ago, hashrates};

pub async fn run(api: &Api, out: &Out, args: WorkersArgs) -> Result<(), Failure> {
    match args.command.unwrap_or(WorkersCommand::List) {
        WorkersCommand::List => list(api, out).await,
        WorkersCommand::Show { id } => show(api, out, &id).await,
        WorkersCommand::Drain { ids } => tell(api, out, "drain", &ids).await,
        WorkersCommand::Pause { ids } => tell(api, out, "pause", &ids).await,
        WorkersCommand::Resume { ids } => tell(api, out, "resume", &ids).await,
    }
}

async fn list(api: &Api, out: &Out) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, "/workers?limit=500")).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    let page: Page<Worker> = api.parse(&raw)?;
    if page.items.is_empty() {
        return out.line("There is no worker. Start one with `flota worker`.");
    }
    let mut table = out.table(&["WORKER", "STATUS", "RUNNING", "CORES", "MEMORY", "CPU", "HASHRATE", "LAST SEEN"]);
    for worker in &page.items {
        table.add_row([
            out.cell(Hue::Plain, &worker.worker_id),
            out.cell(Hue::of_worker(worker.status), worker.status.as_str()),
            out.cell(Hue::Plain, used(&worker.running, &worker.slots)),
            out.cell(Hue::Plain, unless_zero(u64::from(worker.capabilities.cores), "")),
            out.cell(Hue::Plain, memory(worker.capabilities.memory_mib)),
            out.cell(Hue::Plain, format!("{:.0} %", worker.load.cpu * 100.0)),
            out.cell(Hue::Plain, hashrates(worker.hashrate, &worker.algorithms)),
            out.cell(Hue::Dim, ago(worker.last_seen_at)),
        ]);
    }
    out.line(table.trim_fmt())
}

async fn show(api: &Api, out: &Out, id: &WorkerId) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, &format!("/workers/{}", segment(id.as_str())))).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    print(out, &api.parse(&raw)?)
}

fn print(out: &Out, worker: &Worker) -> Result<(), Failure> {
    let detail = worker.status_detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let labels: Vec<String> = worker.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let kinds: Vec<&str> = worker.kinds.iter().map(|kind| kind.as_str()).collect();
    let protocol = if worker.simple { "the simple protocol" } else { "the full protocol" };
    let rows = [
        ("worker", out.paint(Hue::Bold, &worker.worker_id)),
        ("status", out.paint(Hue::of_worker(worker.status), worker.status.as_str()) + &detail),
        ("program", format!("{} {}, {protocol}", worker.language, worker.version).trim_start().to_owned()),
        ("running", used(&worker.running, &worker.slots)),
        ("kinds", kinds.join(", ")),
        ("models", worker.models.join(", ")),
        ("cores", unless_zero(u64::from(worker.capabilities.cores), "")),
        ("memory", memory(worker.capabilities.memory_mib)),
        ("features", worker.capabilities.features.join(", ")),
        ("gpus", worker.capabilities.gpus.join(", ")),
        ("labels", labels.join(", ")),
        ("load", format!("{:.0} % CPU, {:.0} % memory", worker.load.cpu * 100.0, worker.load.memory * 100.0)),
        ("hashrate", hashrates(worker.hashrate, &worker.algorithms)),
        ("connected", worker.connected_at.map_or_else(|| "no".into(), ago)),
        ("last seen", ago(worker.last_seen_at)),
    ];
    out.pairs(&rows.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
}

async fn tell(api: &Api, out: &Out, what: &str, ids: &[WorkerId]) -> Result<(), Failure> {
    let mut refused = Ok(());
    for id in ids {
        let path = format!("/workers/{}/{what}", segment(id.as_str()));
        let answer = api.post::<Box<RawValue>>(&path, None::<&()>).await;
        keep_first(out, &mut refused, answer.and_then(|raw| told(api, out, &raw)))?;
    }
    refused
}

fn told(api: &Api, out: &Out, raw: &RawValue) -> Result<(), Failure> {
    if out.json {
        return out.line(raw.get());
    }
    let worker: Worker = api.parse(raw.get().as_bytes())?;
    let status = out.paint(Hue::of_worker(worker.status), worker.status.as_str());
    out.line(format!("{}  {status}", worker.worker_id))
}

fn used(running: &BTreeMap<Class, u32>, slots: &BTreeMap<Class, u32>) -> String {
    let texts = slots.iter().map(|(class, total)| {
        format!("{} {}/{total}", class.as_str(), running.get(class).copied().unwrap_or_default())
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn memory(mib: u64) -> String {
    if mib >= 1024 { format!("{:.1} GiB", mib as f64 / 1024.0) } else { unless_zero(mib, " MiB") }
}

fn unless_zero(number: u64, unit: &str) -> String {
    if number == 0 { String::new() } else { format!("{number}{unit}") }
}
