//! From settings to the parts' own configurations: the one place that knows both.

use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use flota_common::config::{
    Broker as BrokerSetting, DataDirError, Listen, MadeWorkerId, RandomxMode, Settings, SimpleWorkers, Verify,
};
use flota_master::MasterConfig;
use flota_master::core::Limits;
use flota_master::dispatcher::{CacheLimits, SimpleWorkers as Simple};
use flota_master::ledger::{AiLimits, Budget, Price, Rate};
use flota_master::mqtt::broker::{Broker, BrokerConfig};
use flota_master::seal::Sealer;
use flota_master::store::Retention;
use flota_proto::Class;
use flota_worker::executor::Executor;
use flota_worker::executor::ai::{AiConfig, AiExecutor};
use flota_worker::executor::echo::Echo;
use flota_worker::executor::manners::Manners;
use flota_worker::executor::randomx::{Mode, RandomxConfig, RandomxExecutor};
use flota_worker::executor::sha256d::Sha256dExecutor;
use flota_worker::peer::fetch::Peers;
use flota_worker::{Neighbour, RunningWorker, Worker, WorkerConfig};

use crate::failure::Failure;

/// How long what runs may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// Makes the data directory and holds the store against a second master.
pub fn prepare_data(settings: &Settings) -> Result<File, Failure> {
    settings.prepare_data_dir().map_err(unusable)?;
    settings.lock_store().map_err(unusable)
}

fn unusable(error: DataDirError) -> Failure {
    Failure::Usage(error.to_string())
}

/// Starts the embedded broker at `listen`.
pub fn start_broker(settings: &Settings, listen: SocketAddr) -> Result<Broker, Failure> {
    let config = BrokerConfig { listen, user: settings.mqtt_user.clone(), password: settings.mqtt_password.clone() };
    Broker::start(config).map_err(|error| Failure::Usage(format!("failed to {error}")))
}

/// The broker's URL, and host and port, as a client on this machine reaches it.
pub fn broker_address(setting: &BrokerSetting, embedded: Option<&Broker>) -> (String, (String, u16)) {
    match (setting, embedded) {
        (BrokerSetting::At(url), _) => (url.to_string(), setting.host_port().unwrap_or_default()),
        (BrokerSetting::Embedded, broker) => {
            let address = broker.map(|broker| reachable(broker.addr()));
            let (host, port) = address.map(|at| (at.ip().to_string(), at.port())).unwrap_or_default();
            (address.map(|at| format!("mqtt://{at}")).unwrap_or_default(), (host, port))
        }
    }
}

/// Where a client on this machine reaches a listener.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    Listen { address, set: true }.reachable()
}

/// The master's own configuration.
pub fn master_config(
    settings: &Settings,
    web: SocketAddr,
    grpc: SocketAddr,
    mqtt_url: String,
) -> Result<MasterConfig, Failure> {
    let milliseconds =
        |age: Option<Duration>| age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    Ok(MasterConfig {
        store: settings.sqlite_path(),
        retention: Retention {
            age_ms: milliseconds(settings.retention_age),
            conversations_age_ms: milliseconds(settings.conversation_age),
            bytes_max: settings.retention_size.unwrap_or(u64::MAX),
            sessions_max: settings.browsers_max as u64,
        },
        limits: Limits {
            live_jobs_max: settings.jobs_max,
            owner_jobs_max: settings.owner_jobs_max as u64,
            payload_bytes_max: settings.payload_max,
            result_bytes_max: settings.result_max,
            event_bytes_max: settings.event_log_max,
            workers_max: settings.workers_max,
            verify: match settings.verify {
                Verify::Off => flota_master::core::Verify::Off,
                Verify::Samples => flota_master::core::Verify::Samples,
                Verify::Strict => flota_master::core::Verify::Strict,
            },
            ..Limits::default()
        },
        browsers_max: settings.browsers_max,
        streams_max: settings.streams_max,
        store_reserve_bytes: settings.store_reserve.unwrap_or(0),
        web_listen: web,
        token: settings.token.clone(),
        allowed_origins: settings.allowed_origins.clone(),
        grpc_listen: grpc,
        grpc_advertise: settings.grpc_advertise.clone(),
        stratum_listen: settings.stratum_listen.map(|listen| listen.address),
        worker_token: settings.worker_token.clone(),
        mqtt_url,
        mqtt_user: settings.mqtt_user.clone(),
        mqtt_password: settings.mqtt_password.clone(),
        topic_root: settings.topic_root.clone(),
        simple: match settings.simple_workers {
            SimpleWorkers::Off => Simple::Off,
            SimpleWorkers::Keyless => Simple::Keyless,
            SimpleWorkers::Trusted => Simple::Trusted,
        },
        gemini_api_key: settings.gemini_api_key.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sealer: Sealer::new(&settings.own_seal_key().map_err(unusable)?),
        conversation_tokens: settings.conversation_tokens,
        ai: ai_limits(settings),
        cache: CacheLimits {
            bytes: settings.cache_size.unwrap_or(0),
            age: settings.cache_age.unwrap_or(Duration::from_secs(100 * 365 * 86_400)),
        },
    })
}

/// Limits, budgets and prices as they are set.
fn ai_limits(settings: &Settings) -> AiLimits {
    let rate = |[requests, tokens]: [Option<u64>; 2]| Rate { requests, tokens };
    let budget = |[tokens, micros]: [Option<u64>; 2]| Budget { tokens, micros };
    let price = |[input, output]: [u64; 2]| Price { input, output };
    AiLimits {
        rates: settings.ai_limits.iter().map(|(who, limits)| (who.clone(), rate(*limits))).collect(),
        budgets: settings.ai_budget.iter().map(|(owner, limits)| (owner.clone(), budget(*limits))).collect(),
        prices: settings.ai_prices.iter().map(|(model, prices)| (model.clone(), price(*prices))).collect(),
        currency: settings.ai_currency.clone(),
    }
}

/// `randomx 1, ai 64, echo 256`
pub fn slots_text(settings: &Settings) -> String {
    let used = settings.worker_slots.iter().filter(|(_, slots)| **slots > 0);
    used.map(|(class, slots)| format!("{} {slots}", class.as_str())).collect::<Vec<_>>().join(", ")
}

/// What answers questions.
pub fn ai_text(settings: &Settings) -> String {
    let gemini = settings.gemini_api_key.as_ref().map(|_| format!("Gemini, {}", settings.gemini_model));
    let local = settings.ai_local_url.as_ref().map(|url| format!("local, {url}"));
    match (gemini, local) {
        (None, None) => {
            "none: set GEMINI_API_KEY (or enter a key in the page); the model `demo` shows how it looks".into()
        }
        (gemini, local) => gemini.into_iter().chain(local).collect::<Vec<_>>().join("; "),
    }
}

/// A running worker, with the id that no second process may take.
pub struct StartedWorker {
    /// The worker.
    pub running: RunningWorker,
    _id: MadeWorkerId,
}

/// Starts a worker at the broker `mqtt_url`.
pub async fn start_worker(settings: &Settings, mqtt_url: &str) -> Result<StartedWorker, Failure> {
    settings.prepare_data_dir().map_err(unusable)?;
    let id = settings.own_worker_id().map_err(unusable)?;
    let running = Worker::start(worker_config(settings, &id, mqtt_url), executors(settings))
        .await
        .map_err(|error| Failure::Usage(format!("can't start the worker: {error}")))?;
    Ok(StartedWorker { running, _id: id })
}

fn worker_config(settings: &Settings, id: &MadeWorkerId, mqtt_url: &str) -> WorkerConfig {
    WorkerConfig {
        worker_id: id.id.clone(),
        mqtt_url: mqtt_url.to_owned(),
        mqtt_user: settings.mqtt_user.clone(),
        mqtt_password: settings.mqtt_password.clone(),
        topic_root: settings.topic_root.clone(),
        grpc_url: settings.grpc_url.clone(),
        token: settings.worker_token.clone(),
        slots: settings.worker_slots.clone(),
        prefetch: settings.worker_prefetch.clone(),
        labels: settings.worker_labels.clone(),
        neighbour: neighbour(settings),
        peer_listen: settings.peer_listen,
        data_dir: settings.data_dir.clone(),
        grace: GRACE,
    }
}

/// Those that have a slot.
fn executors(settings: &Settings) -> Vec<Arc<dyn Executor>> {
    let wanted = |class| settings.worker_slots.get(&class).is_some_and(|slots| *slots > 0);
    let mut executors: Vec<Arc<dyn Executor>> = Vec::new();
    if wanted(Class::Echo) {
        executors.push(Arc::new(Echo));
    }
    if wanted(Class::Randomx) {
        executors.push(Arc::new(RandomxExecutor::new(randomx_config(settings))));
        executors.push(Arc::new(Sha256dExecutor::new(manners(settings))));
    }
    if wanted(Class::Ai) {
        executors.push(AiExecutor::start(ai_config(settings)));
    }
    executors
}

fn randomx_config(settings: &Settings) -> RandomxConfig {
    RandomxConfig {
        mode: match settings.randomx_mode {
            RandomxMode::Auto => Mode::Auto,
            RandomxMode::Light => Mode::Light,
            RandomxMode::Fast => Mode::Fast,
        },
        threads: settings.randomx_threads.and_then(|n| NonZeroUsize::new(n as usize)),
        percent: u8::try_from(settings.randomx_percent).unwrap_or(100),
        nice: u8::try_from(settings.randomx_nice).unwrap_or(0),
        cpus: settings.randomx_cpus.clone(),
        keep: settings.randomx_keep,
        shared_directory: settings.randomx_shared_dir.clone(),
        peers: Peers { addresses: settings.peers.clone(), token: settings.worker_token.clone() },
    }
}

/// Of hashing that needs neither memory nor processor cache: on every core.
fn manners(settings: &Settings) -> Manners {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Manners {
        threads: settings.randomx_threads.map_or_else(cores, |threads| threads as usize),
        percent: u8::try_from(settings.randomx_percent).unwrap_or(100),
        nice: u8::try_from(settings.randomx_nice).unwrap_or(0),
        cpus: settings.randomx_cpus.clone(),
    }
}

fn neighbour(settings: &Settings) -> Neighbour {
    Neighbour {
        hours: settings.randomx_hours,
        load_max: settings.randomx_load_max.map(|percent| percent as f64 / 100.0),
        celsius_max: settings.randomx_temperature_max.map(|celsius| celsius as f64),
        battery_pause: settings.randomx_battery_pause,
        user_idle: settings.randomx_user_idle,
    }
}

/// Which AIs this machine can ask.
pub fn ai_config(settings: &Settings) -> AiConfig {
    AiConfig {
        gemini_api_key: settings.gemini_api_key.clone(),
        gemini_base_url: settings.gemini_base_url.clone(),
        gemini_model: settings.gemini_model.clone(),
        local_url: settings.ai_local_url.clone(),
        local_model: settings.ai_local_model.clone(),
        chain: settings.ai_chain.clone(),
        classes: settings.ai_classes.clone(),
    }
}
