//! The metrics' names and what they mean, and the gauges that are refreshed when Prometheus asks. Whoever does a thing
//! counts it: this records only what is the web's own.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use flota_common::clock;
use flota_proto::kinds::{Algorithm, Kind};
use flota_proto::rest::{AttemptOutcome, JobState};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::handle::{Handle, QueueDepthRow};

/// Queues are named by clients: beyond so many they count as one.
const QUEUES_MAX: usize = 200;
const OTHER_QUEUES: &str = "(other)";
/// Of jobs that name none.
const DEFAULT_QUEUE: &str = "default";

const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0];

/// Installs the recorder of this process, once; again it answers with the same handle.
///
/// # Errors
/// When something else has installed a recorder.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    let handle = builder.install_recorder()?;
    describe();
    show_zeros();
    Ok(INSTALLED.get_or_init(|| handle).clone())
}

fn describe() {
    describe_counter!("flota_jobs_total", "Jobs that ended, by kind and outcome");
    describe_histogram!("flota_job_duration_seconds", Unit::Seconds, "From a job's acceptance to its end");
    describe_histogram!("flota_job_wait_seconds", Unit::Seconds, "From a job's acceptance to its first assignment");
    describe_gauge!("flota_queue_depth", "Jobs that have not ended, by queue and state");
    describe_gauge!("flota_queue_oldest_age_seconds", Unit::Seconds, "Age of the oldest pending job, by queue");
    describe_gauge!("flota_workers", "Workers by state");
    describe_gauge!("flota_worker_slots", "Slots of workers that are there, used and free");
    describe_counter!("flota_hashes_total", "RandomX hashes computed");
    describe_counter!("flota_algorithm_hashes_total", "Hashes computed, by algorithm");
    describe_counter!("flota_attempts_total", "Attempts that ended, by outcome");
    describe_counter!("flota_ai_tokens_total", "Tokens by provider, model and direction");
    describe_counter!("flota_ai_requests_total", "AI jobs that ended, by provider, model and outcome");
    describe_counter!(
        "flota_ai_cost_micros_total",
        "Cost of AI jobs by provider and model, in millionths of the currency"
    );
    describe_counter!("flota_cache_total", "Jobs that may use an earlier result, by whether there was one");
    describe_gauge!("flota_cache_bytes", Unit::Bytes, "Results that are kept for jobs that ask the same");
    describe_counter!("flota_verified_total", "Hashes that the master computed again");
    describe_histogram!("flota_verify_seconds", Unit::Seconds, "How long a hash took that the master computed again");
    describe_histogram!(
        "flota_verify_cpu_seconds",
        Unit::Seconds,
        "Processor time of a hash that the master computed again, the cache of a new key included"
    );
    describe_counter!("flota_checks_total", "Units of which the master computed something again, by outcome");
    describe_counter!("flota_quarantines_total", "How often a worker was set aside");
    describe_histogram!("flota_store_commit_seconds", Unit::Seconds, "How long a commit of the store takes");
    describe_counter!("flota_workers_refused_total", "Registrations turned away as too many workers are known");
    describe_counter!("flota_mqtt_publishes_total", "Messages to the broker, by outcome");
    describe_gauge!("flota_socket_clients", "Connected Socket.IO clients");
    describe_gauge!("flota_build_info", "1, with the version of the program");
}

/// What has not happened is 0, not missing; where the labels are known beforehand.
fn show_zeros() {
    counter!("flota_hashes_total").increment(0);
    for algorithm in Algorithm::ALL {
        counter!("flota_algorithm_hashes_total", "algorithm" => algorithm.as_str()).increment(0);
    }
    for kind in Kind::ALL {
        for outcome in JobState::ALL.into_iter().filter(|state| state.ended()) {
            counter!("flota_jobs_total", "kind" => kind.as_str(), "outcome" => outcome.as_str()).increment(0);
        }
    }
    for outcome in AttemptOutcome::ALL {
        counter!("flota_attempts_total", "outcome" => outcome.as_str()).increment(0);
    }
    for outcome in ["acknowledged", "dropped", "refused", "retried", "sent"] {
        counter!("flota_mqtt_publishes_total", "outcome" => outcome).increment(0);
    }
    for state in JobState::ALL.into_iter().filter(|state| !state.ended()) {
        set("flota_queue_depth", DEFAULT_QUEUE, state.as_str(), 0);
    }
    set_age(DEFAULT_QUEUE, 0);
    // To be known is enough for them.
    let _ = histogram!("flota_job_duration_seconds");
    let _ = histogram!("flota_job_wait_seconds");
    let _ = histogram!("flota_store_commit_seconds");
}

/// What is rendered, and which queues were in it last time.
pub struct Metrics {
    prometheus: PrometheusHandle,
    version: String,
    shown: Mutex<BTreeSet<(String, &'static str)>>,
    shown_ages: Mutex<BTreeSet<String>>,
}

impl Metrics {
    /// Renders from `prometheus`.
    pub fn new(prometheus: PrometheusHandle, version: String) -> Self {
        Self { prometheus, version, shown: Mutex::default(), shown_ages: Mutex::default() }
    }

    /// Of the program.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Moves what histograms have gathered into their buckets, so that it doesn't grow while nobody scrapes.
    pub fn upkeep(&self) {
        self.prometheus.run_upkeep();
    }

    /// Refreshes the gauges and renders everything. A dispatcher that does not answer leaves its gauges as they were.
    pub async fn scrape(&self, handle: &Handle, socket_clients: usize) -> String {
        gauge!("flota_build_info", "version" => self.version.clone()).set(1.0);
        #[allow(clippy::cast_precision_loss)]
        gauge!("flota_socket_clients").set(socket_clients as f64);
        if let Ok(rows) = handle.queue_depths().await {
            self.show_queues(rows);
        }
        if let Ok(fleet) = handle.fleet().await {
            show_fleet(&fleet);
        }
        self.upkeep();
        self.prometheus.render()
    }

    fn show_queues(&self, mut rows: Vec<QueueDepthRow>) {
        fold(&mut rows);
        let now = clock::now();
        let mut depths = BTreeSet::new();
        let mut ages = BTreeSet::new();
        for row in rows {
            for (state, count) in row.by_state {
                set("flota_queue_depth", &row.queue, state.as_str(), count);
                depths.insert((row.queue.clone(), state.as_str()));
            }
            let age_ms = row.oldest.map_or(0, |oldest| now.since_ms(oldest));
            set_age(&row.queue, age_ms);
            ages.insert(row.queue);
        }
        // A queue that has gone is empty, not as full as it was.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (queue, state) in shown.difference(&depths) {
            set("flota_queue_depth", queue, state, 0);
        }
        *shown = depths;
        let mut shown = self.shown_ages.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in shown.difference(&ages) {
            set_age(queue, 0);
        }
        *shown = ages;
    }
}

#[allow(clippy::cast_precision_loss)]
fn set(name: &'static str, queue: &str, state: &'static str, count: u64) {
    gauge!(name, "queue" => queue.to_owned(), "state" => state).set(count as f64);
}

#[allow(clippy::cast_precision_loss)]
fn set_age(queue: &str, age_ms: u64) {
    gauge!("flota_queue_oldest_age_seconds", "queue" => queue.to_owned()).set(age_ms as f64 / 1000.0);
}

fn fold(rows: &mut Vec<QueueDepthRow>) {
    if rows.len() <= QUEUES_MAX {
        return;
    }
    let mut other = QueueDepthRow { queue: OTHER_QUEUES.into(), ..QueueDepthRow::default() };
    for row in rows.drain(QUEUES_MAX..) {
        for (state, count) in row.by_state {
            *other.by_state.entry(state).or_default() += count;
        }
        other.oldest = other.oldest.into_iter().chain(row.oldest).min();
    }
    rows.push(other);
}

#[allow(clippy::cast_precision_loss)]
fn show_fleet(fleet: &flota_proto::rest::Fleet) {
    for state in flota_proto::mqtt::WorkerState::ALL {
        let count = fleet.workers.get(&state).copied().unwrap_or_default();
        gauge!("flota_workers", "state" => state.as_str()).set(count as f64);
    }
    let total: u64 = fleet.slots.values().map(|slots| slots.total).sum();
    let used: u64 = fleet.slots.values().map(|slots| slots.used).sum();
    gauge!("flota_worker_slots", "state" => "used").set(used as f64);
    gauge!("flota_worker_slots", "state" => "free").set(total.saturating_sub(used) as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flota_proto::Timestamp;

    #[test]
    fn queues_beyond_the_bound_count_as_one() {
        let row = |n: u64| QueueDepthRow {
            queue: format!("q{n}"),
            by_state: [(JobState::Pending, 2)].into(),
            oldest: Some(Timestamp(1000 - n)),
        };
        let mut rows: Vec<_> = (0..QUEUES_MAX as u64 + 3).map(row).collect();
        fold(&mut rows);
        assert_eq!(rows.len(), QUEUES_MAX + 1);
        let other = &rows[QUEUES_MAX];
        assert_eq!(other.by_state[&JobState::Pending], 6);
        assert_eq!(other.oldest, Some(Timestamp(1000 - QUEUES_MAX as u64 - 2)));
    }
}
