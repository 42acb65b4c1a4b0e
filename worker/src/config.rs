//! What a worker needs to know to start, and why it may not start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use flota_common::mqtt;
use flota_proto::{Class, WorkerId};
use secrecy::SecretString;
use thiserror::Error;

use crate::neighbour::Neighbour;
use crate::spool::SpoolError;

/// How many units of each class run at once unless the operator says otherwise.
#[must_use]
pub fn default_slots() -> BTreeMap<Class, u32> {
    [(Class::Randomx, 1), (Class::Ai, 64), (Class::Echo, 256)].into()
}

/// How many units of each class may wait at the worker beyond its slots.
#[must_use]
pub fn default_prefetch() -> BTreeMap<Class, u32> {
    [(Class::Randomx, 1), (Class::Ai, 0), (Class::Echo, 1024)].into()
}

/// The settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Who it is; also its MQTT client id.
    pub worker_id: WorkerId,
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`.
    pub mqtt_url: String,
    /// The account at the broker.
    pub mqtt_user: Option<String>,
    /// Its password.
    pub mqtt_password: Option<SecretString>,
    /// What all topics begin with.
    pub topic_root: String,
    /// Where to report to (`host:port` or `http://host:port`), whatever the master says.
    pub grpc_url: Option<String>,
    /// What the master wants to see (`FLOTA_WORKER_TOKEN`).
    pub token: Option<SecretString>,
    /// Units of a class at once; a class that is missing has its default, 0 switches it off.
    pub slots: BTreeMap<Class, u32>,
    /// Units of a class that may wait here beyond the slots; a class that is missing has its default.
    pub prefetch: BTreeMap<Class, u32>,
    /// What jobs can ask for in `requires.labels`.
    pub labels: BTreeMap<String, String>,
    /// When RandomX waits.
    pub neighbour: Neighbour,
    /// Where other workers may fetch RandomX datasets; `None`: nowhere.
    pub peer_listen: Option<SocketAddr>,
    /// For unacknowledged results, in a directory `spool-ID` of this worker.
    pub data_dir: PathBuf,
    /// How long what runs may go on after [`crate::RunningWorker::shutdown`].
    pub grace: Duration,
}

impl WorkerConfig {
    /// A worker with default slots that keeps its results in `data_dir`.
    #[must_use]
    pub fn new(worker_id: WorkerId, mqtt_url: &str, data_dir: PathBuf) -> Self {
        Self {
            worker_id,
            mqtt_url: mqtt_url.to_owned(),
            mqtt_user: None,
            mqtt_password: None,
            topic_root: "flota".to_owned(),
            grpc_url: None,
            token: None,
            slots: default_slots(),
            prefetch: default_prefetch(),
            labels: BTreeMap::new(),
            neighbour: Neighbour::default(),
            peer_listen: None,
            data_dir,
            grace: Duration::from_secs(10),
        }
    }

    /// The `host:port` that goes before what the master says.
    pub(crate) fn endpoint_override(&self) -> Result<Option<String>, StartError> {
        let Some(url) = self.grpc_url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let endpoint = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let port = endpoint.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
        if matches!(port, Some(Ok(1..))) && !endpoint.contains(['/', '@', ' ']) {
            Ok(Some(endpoint.to_owned()))
        } else {
            Err(StartError::GrpcUrl(url.to_owned()))
        }
    }
}

/// Why a worker did not start. Completes "failed to start the worker: …".
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The broker's address or account.
    #[error(transparent)]
    Mqtt(#[from] mqtt::ConfigError),
    /// Not the beginning of a topic.
    #[error("FLOTA_TOPIC_ROOT: {0}")]
    TopicRoot(String),
    /// Not an address.
    #[error("FLOTA_GRPC_URL is '{0}': give host:port or http://host:port (there is no TLS on this link yet)")]
    GrpcUrl(String),
    /// Datasets would be given to anybody.
    #[error("FLOTA_PEER_LISTEN is {0}, which other machines can reach: set FLOTA_WORKER_TOKEN, or listen on 127.0.0.1")]
    PeerToken(SocketAddr),
    /// The address for other workers.
    #[error("FLOTA_PEER_LISTEN: can't listen on {0}: {1}")]
    PeerListen(SocketAddr, std::io::Error),
    /// There is nothing that it could do.
    #[error("it has no slots: set FLOTA_WORKER_SLOTS, such as randomx=1,ai=64,echo=256")]
    NoSlots,
    /// The system refused a thread.
    #[error("the system gives no thread for reports: {0}")]
    Thread(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_master_is_checked_at_the_start() {
        let mut config = WorkerConfig::new("w".parse().unwrap(), "mqtt://h", PathBuf::new());
        let mut given = |url: &str| {
            config.grpc_url = Some(url.to_owned());
            config.endpoint_override().map_err(|error| error.to_string())
        };
        assert_eq!(given(""), Ok(None));
        assert_eq!(given("http://master:50051/"), Ok(Some("master:50051".into())));
        assert_eq!(given("[::1]:1"), Ok(Some("[::1]:1".into())));
        for bad in ["master", "https://master:50051", ":1", "master:0", "master:99999", "http://master:1/x"] {
            let error = given(bad).unwrap_err();
            assert!(error.contains("FLOTA_GRPC_URL") && error.contains(bad), "{error}");
        }
    }
}
