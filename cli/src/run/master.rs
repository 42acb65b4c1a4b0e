//! `flota master`: the coordinator without a worker; and what `flota up` starts of it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};

use flota_common::config::{Broker as BrokerSetting, Settings, SimpleWorkers};
use flota_common::logging;
use flota_master::RunningMaster;
use flota_master::logs::LogHub;
use flota_master::mqtt::broker::Broker;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::banner::Banner;
use super::ports::{Fallback, Place, place};
use super::{parts, runtime, signals};
use crate::failure::Failure;
use crate::output::Out;

pub fn run(settings: &Settings, out: &Out) -> Result<(), Failure> {
    let hub = LogHub::new();
    init_log(settings, &hub)?;
    runtime()?.block_on(async {
        let stop = signals::stop_on_signal()?;
        let master = start(settings, &settings.broker(), Fallback::Never, hub).await?;
        let result = match master.banner(settings).print(out) {
            Ok(()) => master.until_stopped(&stop).await,
            Err(failure) => Err(failure),
        };
        master.shutdown().await;
        result
    })
}

/// The log of this process, which goes to the fleet's log too.
pub fn init_log(settings: &Settings, hub: &LogHub) -> Result<(), Failure> {
    logging::init(settings, Some(hub.layer())).map_err(|error| Failure::Usage(error.to_string()))
}

/// A master that runs, with its broker where that is embedded.
pub struct Started {
    /// How a client on this machine reaches the broker.
    pub broker_url: String,
    broker_address: (String, u16),
    master: RunningMaster,
    broker: Option<Broker>,
    moved: Vec<(&'static str, u16, u16)>,
    /// No second master may use the store.
    _lock: File,
}

/// Starts the broker, where it is embedded, and the master.
pub async fn start(
    settings: &Settings,
    broker: &BrokerSetting,
    fallback: Fallback,
    hub: LogHub,
) -> Result<Started, Failure> {
    settings.check_exposure(broker)?;
    if settings.simple_workers == SimpleWorkers::Trusted {
        warn!(
            "FLOTA_SIMPLE_WORKERS is trusted: API keys travel in clear on {}/workers/+/tasks, to whoever may read there",
            settings.topic_root
        );
    }
    let lock = parts::prepare_data(settings)?;
    let web = place("web_listen", &settings.web_listen, fallback)?;
    let grpc = place("grpc_listen", &settings.grpc_listen, fallback)?;
    let (embedded, mqtt) = match broker {
        BrokerSetting::Embedded => {
            let mqtt = place("mqtt_listen", &settings.mqtt_listen, fallback)?;
            (Some(parts::start_broker(settings, mqtt.address)?), Some(mqtt))
        }
        BrokerSetting::At(_) => (None, None),
    };
    let (broker_url, broker_address) = parts::broker_address(broker, embedded.as_ref());
    let config = parts::master_config(settings, web.address, grpc.address, broker_url.clone())?;
    let master = RunningMaster::start(config, hub)
        .await
        .map_err(|error| Failure::Failed(format!("the master does not start: failed to {error}")))?;
    let moved = |what, place: Option<Place>, port| Some((what, place?.taken?, port));
    let moved = [
        moved("the page", Some(web), master.web_addr.port()),
        moved("gRPC", Some(grpc), master.grpc_addr.port()),
        moved("the broker", mqtt, broker_address.1),
    ];
    let moved = moved.into_iter().flatten().collect();
    Ok(Started { broker_url, broker_address, master, broker: embedded, moved, _lock: lock })
}

impl Started {
    /// Where everything is, without a worker.
    pub fn banner<'a>(&'a self, settings: &'a Settings) -> Banner<'a> {
        let web = parts::reachable(self.master.web_addr);
        let grpc = parts::reachable(self.master.grpc_addr).to_string();
        Banner {
            web,
            grpc: settings.grpc_advertise.clone().unwrap_or(grpc),
            broker: &self.broker_url,
            broker_address: self.broker_address.clone(),
            broker_user: settings.mqtt_user.as_deref(),
            topic_root: &settings.topic_root,
            data_dir: &settings.data_dir,
            worker: None,
            ai: None,
            moved: self.moved.clone(),
            tells_loopback: settings.grpc_advertise.is_none() && self.master.grpc_addr.ip().is_unspecified(),
            usual_web: web == SocketAddr::from((Ipv4Addr::LOCALHOST, 8888)),
        }
    }

    /// Runs until `stop`, or until the master ends by itself, which is a failure.
    pub async fn until_stopped(&self, stop: &CancellationToken) -> Result<(), Failure> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            reason = self.master.ended() => Err(Failure::Failed(format!("the master has ended: {reason}"))),
        }
    }

    /// First the master, then its broker.
    pub async fn shutdown(self) {
        self.master.shutdown().await;
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
    }
}
