//! The settings of every part: defaults < `flota.toml` < environment < flags. A name that is not known or a value that
//! is not allowed stops the start and says where it came from and what is allowed.

mod ai;
mod data_dir;
mod error;
mod keys;
mod parse;
mod read;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use flota_proto::{Class, WorkerId};
use secrecy::SecretString;
use url::Url;

pub use data_dir::{DataDirError, MadeWorkerId};
pub use error::{ConfigError, ConfigErrors};
pub use keys::{KEYS, Key, Scope, Shape};
pub use sources::{FILE, Sources};

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where; port 0 picks a free one.
    pub address: SocketAddr,
    /// Somebody set it: it may not silently become another.
    pub set: bool,
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn loopback(&self) -> bool {
        parse::loopback(self.address.ip())
    }

    /// Where a client on this machine reaches it.
    #[must_use]
    pub fn reachable(&self) -> SocketAddr {
        parse::reachable(self.address)
    }
}

/// Which broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// The one within the process.
    Embedded,
    /// `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`, without an account in it.
    At(Url),
}

impl Broker {
    /// Host and port; `None` for the embedded one.
    #[must_use]
    pub fn host_port(&self) -> Option<(String, u16)> {
        match self {
            Self::Embedded => None,
            Self::At(url) => {
                let default = if url.scheme() == "mqtts" { 8883 } else { 1883 };
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                Some((host.to_owned(), url.port().unwrap_or(default)))
            }
        }
    }
}

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file; `None`: in the data directory.
    Sqlite(Option<PathBuf>),
}

/// How results of RandomX are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Workers are believed.
    Off,
    /// All finds, and samples of the rest.
    Samples,
    /// And a search without a proof does not count.
    Strict,
}

/// What becomes of workers that speak only the simple protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleWorkers {
    /// They are ignored.
    Off,
    /// They are served and never sent an API key.
    Keyless,
    /// They are sent API keys over MQTT.
    Trusted,
}

/// How much memory RandomX may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomxMode {
    /// Fast where there is memory for it.
    Auto,
    /// 256 MiB.
    Light,
    /// 2336 MiB.
    Fast,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that can be set. Secrets are never shown by `Debug`.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the table in `keys.rs` says what each is for
pub struct Settings {
    pub url: Option<Url>,
    pub token: Option<SecretString>,
    pub web_listen: Listen,
    pub grpc_listen: Listen,
    pub grpc_advertise: Option<String>,
    pub allowed_origins: Vec<String>,
    pub store_url: StoreUrl,
    /// `None`: for ever.
    pub retention_age: Option<Duration>,
    /// In bytes; `None`: without bound.
    pub retention_size: Option<u64>,
    /// In bytes; `None`: the disk may be filled.
    pub store_reserve: Option<u64>,
    pub jobs_max: usize,
    pub owner_jobs_max: usize,
    /// In bytes.
    pub payload_max: usize,
    /// In bytes.
    pub result_max: usize,
    /// In bytes.
    pub event_log_max: usize,
    pub browsers_max: usize,
    pub streams_max: usize,
    pub workers_max: usize,
    pub simple_workers: SimpleWorkers,
    /// By `owner`, `model` and `key`: requests and tokens a minute.
    pub ai_limits: BTreeMap<String, [Option<u64>; 2]>,
    /// By owner, the empty one for everybody: tokens, and money in millionths, a day.
    pub ai_budget: BTreeMap<String, [Option<u64>; 2]>,
    /// By model, the longest name first: what a million tokens of questions and answers cost, in millionths.
    pub ai_prices: Vec<(String, [u64; 2])>,
    pub ai_currency: String,
    /// In bytes; `None`: off.
    pub cache_size: Option<u64>,
    /// `None`: for ever.
    pub cache_age: Option<Duration>,
    pub verify: Verify,
    pub seal_key: Option<SecretString>,
    pub conversation_tokens: u64,
    /// `None`: for ever.
    pub conversation_age: Option<Duration>,
    /// `None`: embedded for `flota up`, on this machine for the others.
    pub mqtt_url: Option<Broker>,
    pub mqtt_user: Option<String>,
    pub mqtt_password: Option<SecretString>,
    pub mqtt_listen: Listen,
    /// Where stock miners may join as guests.
    pub stratum_listen: Option<Listen>,
    pub topic_root: String,
    pub data_dir: PathBuf,
    pub worker_id: Option<WorkerId>,
    pub worker_token: Option<SecretString>,
    pub worker_slots: BTreeMap<Class, u32>,
    pub worker_prefetch: BTreeMap<Class, u32>,
    pub worker_labels: BTreeMap<String, String>,
    pub grpc_url: Option<String>,
    pub randomx_mode: RandomxMode,
    pub randomx_threads: Option<u32>,
    pub randomx_shared_dir: Option<PathBuf>,
    /// `None`: for ever.
    pub randomx_keep: Option<Duration>,
    pub randomx_percent: usize,
    pub randomx_nice: usize,
    pub randomx_cpus: Vec<usize>,
    /// Minutes of the day.
    pub randomx_hours: Option<(u16, u16)>,
    pub randomx_load_max: Option<usize>,
    pub randomx_temperature_max: Option<usize>,
    /// Pauses on battery.
    pub randomx_battery_pause: bool,
    pub randomx_user_idle: Option<Duration>,
    pub peer_listen: Option<SocketAddr>,
    pub peers: Vec<String>,
    pub gemini_api_key: Option<SecretString>,
    pub gemini_base_url: Url,
    pub gemini_model: String,
    pub ai_local_url: Option<Url>,
    pub ai_local_model: Option<String>,
    pub ai_chain: Vec<flota_proto::chain::Link>,
    pub ai_classes: BTreeMap<String, String>,
    pub log: String,
    pub log_format: LogFormat,
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All that is wrong, each with its name, its value (unless it is a secret), where it came from and what is allowed.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        read::settings(sources)
    }

    /// The file of the SQLite store.
    #[must_use]
    pub fn sqlite_path(&self) -> PathBuf {
        match &self.store_url {
            StoreUrl::Sqlite(Some(path)) => path.clone(),
            StoreUrl::Sqlite(None) => self.data_dir.join("flota.db"),
        }
    }

    /// The broker that a part of its own talks to.
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.mqtt_url.clone().unwrap_or_else(|| match Url::parse("mqtt://127.0.0.1:1883") {
            Ok(url) => Broker::At(url),
            Err(_) => Broker::Embedded,
        })
    }

    /// Where the fleet's REST is, without `/` at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        let url = self.url.as_ref().map_or_else(|| format!("http://{}", self.web_listen.reachable()), Url::to_string);
        url.trim_end_matches('/').to_owned()
    }

    /// Checks that what can be reached from other machines asks for a secret. For the master, before it listens.
    ///
    /// # Errors
    /// Which listener stands open, and what to set.
    pub fn check_exposure(&self, broker: &Broker) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        let mut demand = |name: &str, listen: &Listen, closed: bool, what: &str| {
            if !listen.loopback() && !closed {
                let variable = Key::find(name).map_or_else(String::new, Key::variable);
                let message = format!("can be reached from other machines: set {what}, or listen on 127.0.0.1");
                let value = Some(listen.address.to_string());
                errors.push(ConfigError { name: variable, value, source: String::new(), message });
            }
        };
        demand("web_listen", &self.web_listen, self.token.is_some(), "FLOTA_TOKEN (or FLOTA_TOKEN_FILE)");
        let workers = self.worker_token.is_some();
        demand("grpc_listen", &self.grpc_listen, workers, "FLOTA_WORKER_TOKEN (or FLOTA_WORKER_TOKEN_FILE)");
        if let Some(listen) = &self.stratum_listen {
            demand("stratum_listen", listen, workers, "FLOTA_WORKER_TOKEN (or FLOTA_WORKER_TOKEN_FILE)");
        }
        let account = self.mqtt_user.is_some() && self.mqtt_password.is_some();
        if *broker == Broker::Embedded {
            demand("mqtt_listen", &self.mqtt_listen, account, "FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD");
        }
        if self.simple_workers == SimpleWorkers::Trusted && !account && !self.broker_is_local(broker) {
            errors.push(ConfigError {
                name: "FLOTA_SIMPLE_WORKERS".into(),
                value: Some("trusted".into()),
                source: String::new(),
                message: "API keys would travel over a broker that anyone may read: set FLOTA_MQTT_USER and \
                          FLOTA_MQTT_PASSWORD, or use a broker on 127.0.0.1"
                    .into(),
            });
        }
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    fn broker_is_local(&self, broker: &Broker) -> bool {
        match broker.host_port() {
            None => self.mqtt_listen.loopback(),
            Some((host, _)) => host == "localhost" || host.parse().is_ok_and(parse::loopback),
        }
    }
}
