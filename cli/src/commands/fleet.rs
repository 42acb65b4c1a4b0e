//! `flota fleet`: the totals.

use std::time::Duration;

use flota_proto::rest::Fleet;
use reqwest::Method;

use crate::api::Api;
use crate::failure::Failure;
use crate::output::{Hue, Out, duration, hashrates, thousands};

pub async fn run(api: &Api, out: &Out) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, "/fleet")).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    let fleet: Fleet = api.parse(&raw)?;
    let workers = counted(fleet.workers.iter().map(|(state, n)| (Hue::of_worker(*state), state.as_str(), *n)), out);
    let jobs = counted(fleet.jobs.iter().map(|(state, n)| (Hue::of_job(*state), state.as_str(), *n)), out);
    let used = fleet.slots.iter().map(|(class, slots)| format!("{} {}/{}", class.as_str(), slots.used, slots.total));
    let slots: Vec<String> = used.collect();
    let age = duration(Duration::from_millis(fleet.queue.oldest_age_ms));
    let queue = match fleet.queue.depth {
        0 => "empty".into(),
        depth => format!("{} waiting, the oldest for {age}", thousands(depth)),
    };
    let none = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    out.pairs(&[
        ("workers", none(workers, "none: start one with `flota worker`")),
        ("slots", none(slots.join(", "), "none")),
        ("queue", queue),
        ("jobs", none(jobs, "none yet")),
        ("hashrate", hashrates(fleet.hashrate, &fleet.algorithms)),
    ])
}

fn counted<'a>(states: impl Iterator<Item = (Hue, &'a str, u64)>, out: &Out) -> String {
    let shown = states.filter(|(_, _, n)| *n > 0);
    let texts: Vec<String> =
        shown.map(|(hue, state, n)| format!("{} {}", thousands(n), out.paint(hue, state))).collect();
    texts.join(", ")
}
