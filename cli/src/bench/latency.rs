//! The latency of a lone job on an idle fleet: from the request that submits it until its result has been read.

use std::time::Duration;

use flota_common::clock;
use flota_proto::rest::{Job, JobState};
use serde::Serialize;

use crate::api::{Api, WAIT_MS};
use crate::failure::Failure;
use crate::output::Out;

/// Not counted: connections open, caches fill.
const WARM_UP: u64 = 20;

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub samples: usize,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Percentiles {
    /// `None` of nothing.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map(|time| time.as_secs_f64() * 1000.0)
        };
        Some(Self { samples: times.len(), p50_ms: at(50)?, p95_ms: at(95)?, p99_ms: at(99)?, max_ms: at(100)? })
    }
}

/// One job after the other, `count` of them.
pub async fn measure(api: &Api, out: &Out, count: u64) -> Result<Option<Percentiles>, Failure> {
    if count == 0 {
        return Ok(None);
    }
    let bar = out.bar(count, "latency      {bar:32.cyan} {percent:>3} %  {elapsed}");
    for value in 0..WARM_UP {
        lone_job(api, value).await?;
    }
    let mut times = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    for value in 0..count {
        times.push(lone_job(api, value).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Percentiles::of(times))
}

async fn lone_job(api: &Api, value: u64) -> Result<Duration, Failure> {
    let body = format!(r#"{{"kind":"echo","payload":{{"value":{value}}}}}"#);
    let started = clock::instant();
    let job: Job = api.json(api.post_raw("/jobs", body)).await?;
    let answer = api.job_within(job.id, WAIT_MS).await?;
    let took = started.elapsed();
    let job: Job = api.parse(&answer)?;
    let expected = format!(r#"{{"value":{value}}}"#);
    match &job.result {
        Some(result) if job.state == JobState::Completed && result.get() == expected => Ok(took),
        _ => Err(Failure::Failed(format!(
            "lone job {} is {} instead of completed with {expected}",
            job.id,
            job.state.as_str()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let p = Percentiles::of(times).unwrap();
        assert_eq!((p.p50_ms, p.p95_ms, p.p99_ms, p.max_ms), (50.0, 95.0, 99.0, 100.0));
        let one = Percentiles::of(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms), (7.0, 7.0));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }
}
