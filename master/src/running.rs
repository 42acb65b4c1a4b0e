//! Starts the parts of a master in their order, and stops them in the reverse one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use flota_common::mqtt::ConfigError;
use flota_proto::topics::Topics;
use secrecy::SecretString;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};
use uuid::Uuid;

use crate::callback::{self, Callback, CallbackConfig, CallbackError};
use crate::core::{Limits, Verify};
use crate::dispatcher::{CacheLimits, Config, Dispatcher, SimpleWorkers};
use crate::handle::Handle;
use crate::ledger::AiLimits;
use crate::logs::LogHub;
use crate::mqtt::{LinkConfig, connect};
use crate::seal::Sealer;
use crate::sources::{Book, GuestConfig, Listeners, Sources};
use crate::store::{Retention, SqliteStore, Store, StoreError};
use crate::verifier::Verifier;
use crate::web::{self, WebConfig, WebError};

/// What a master needs to know.
pub struct MasterConfig {
    /// The database.
    pub store: PathBuf,
    /// How long ended jobs are kept, and how large the store may become.
    pub retention: Retention,
    /// Bounds of the queue, of jobs and of results.
    pub limits: Limits,
    /// Browsers that are connected at once.
    pub browsers_max: usize,
    /// Event streams and calls that wait, open at once.
    pub streams_max: usize,
    /// With less free space than this for the store, no new jobs are accepted.
    pub store_reserve_bytes: u64,
    /// Where the page and REST listen; port 0 picks a free one.
    pub web_listen: SocketAddr,
    /// What clients must present.
    pub token: Option<SecretString>,
    /// Pages of other origins that may use the API.
    pub allowed_origins: Vec<String>,
    /// Where gRPC listens; port 0 picks a free one.
    pub grpc_listen: SocketAddr,
    /// What workers are told, `host:port`; else the listener's own address.
    pub grpc_advertise: Option<String>,
    /// What workers must present.
    pub worker_token: Option<SecretString>,
    /// `mqtt://` or `mqtts://`.
    pub mqtt_url: String,
    /// The account at the broker.
    pub mqtt_user: Option<String>,
    /// Its password.
    pub mqtt_password: Option<SecretString>,
    /// Where stock miners may join as guests.
    pub stratum_listen: Option<SocketAddr>,
    /// What all topics begin with.
    pub topic_root: String,
    /// How simple workers are served.
    pub simple: SimpleWorkers,
    /// The master's own key, for trusted simple workers.
    pub gemini_api_key: Option<SecretString>,
    /// Of the program.
    pub version: String,
    /// Seals users' keys in the store.
    pub sealer: Sealer,
    /// How much of a conversation is sent with a question, in tokens.
    pub conversation_tokens: u64,
    /// Limits, budgets and prices of AI jobs.
    pub ai: AiLimits,
    /// How much of results is kept for others that ask the same.
    pub cache: CacheLimits,
}

/// Why a master did not start. Completes "failed to …".
#[derive(Debug, Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// gRPC.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// REST, Socket.IO and the page.
    #[error("start the web side: {0}")]
    Web(#[from] WebError),
    /// The broker's settings.
    #[error(transparent)]
    Mqtt(#[from] ConfigError),
    /// The topic root.
    #[error("use FLOTA_TOPIC_ROOT: {0}")]
    TopicRoot(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A master that runs.
pub struct RunningMaster {
    /// Where the page and REST listen.
    pub web_addr: SocketAddr,
    /// Where gRPC listens.
    pub grpc_addr: SocketAddr,
    /// Grows whenever a master takes charge of the store.
    pub epoch: u64,
    handle: Handle,
    callback: Callback,
    stop_web: CancellationToken,
    stop_callback: CancellationToken,
    stop_link: CancellationToken,
    tasks: TaskTracker,
    link: tokio::task::JoinHandle<()>,
    sources: Sources,
    saving: tokio::task::JoinHandle<()>,
    ended: watch::Receiver<Option<String>>,
}

impl RunningMaster {
    /// Starts a master. What listens, listens when this answers; the broker may come later.
    ///
    /// # Errors
    /// [`StartError`] says what to do.
    pub async fn start(config: MasterConfig, hub: LogHub) -> Result<Self, StartError> {
        let topics = Topics::new(&config.topic_root).map_err(StartError::TopicRoot)?;
        let metrics =
            web::metrics::install().map_err(|error| StartError::Other(format!("install metrics: {error}")))?;
        let mut store = SqliteStore::open(&config.store)?;
        let epoch = store.take_charge()?;
        let (handle, commands) = Handle::channel();
        let (stop_web, stop_callback, stop_link) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());

        let callback_config = CallbackConfig { listen: config.grpc_listen, worker_token: config.worker_token.clone() };
        let callback = callback::start(callback_config, handle.clone(), stop_callback.clone()).await?;
        let grpc_addr = callback.addr();
        let grpc_endpoint = config.grpc_advertise.clone().unwrap_or_else(|| reachable(grpc_addr).to_string());

        let listeners = Arc::new(Listeners::default());
        let verifier = Verifier::start().map_err(|error| StartError::Other(format!("start a thread: {error}")))?;
        let sources = Sources::new(
            handle.clone(),
            listeners.clone(),
            verifier.clone(),
            Book::open(&config.store, epoch, config.sealer.clone())?,
        );
        if let Err(refused) = sources.load().await {
            error!("the work sources could not be brought back: {refused}");
        }
        let tasks = TaskTracker::new();
        let web_config = WebConfig {
            listen: config.web_listen,
            token: config.token.clone(),
            allowed_origins: config.allowed_origins.clone(),
            browsers_max: config.browsers_max,
            streams_max: config.streams_max,
            version: config.version.clone(),
            tasks: tasks.clone(),
        };
        let web_addr =
            web::start(web_config, handle.clone(), sources.clone(), hub.clone(), metrics, stop_web.clone()).await?;

        let link_config = LinkConfig {
            url: config.mqtt_url.clone(),
            user: config.mqtt_user.clone(),
            password: config.mqtt_password.clone(),
            topics: topics.clone(),
            grpc_endpoint: grpc_endpoint.clone(),
            web_url: format!("http://{}", reachable(web_addr)),
            epoch,
            boot_id: Uuid::now_v7().to_string(),
        };
        let (client, link) = connect(link_config)?;
        let dispatcher_config = Config {
            topics,
            grpc_endpoint,
            simple: config.simple,
            gemini_api_key: config.gemini_api_key,
            limits: Limits { simple_take_keys: config.simple == SimpleWorkers::Trusted, ..config.limits },
            retention: config.retention,
            store_reserve_bytes: config.store_reserve_bytes,
            sealer: config.sealer,
            conversation_tokens: config.conversation_tokens,
            ai: config.ai,
            cache: config.cache,
            listeners,
            verifier: (config.limits.verify != Verify::Off).then_some(verifier),
        };
        let dispatcher = Dispatcher::new(dispatcher_config, Box::new(store), epoch, Arc::new(client), &handle)?;
        let running =
            dispatcher.spawn(commands).map_err(|error| StartError::Other(format!("start a thread: {error}")))?;
        let link = tokio::spawn(link.run(handle.clone(), hub, stop_link.clone()));

        let (tell_end, ended) = watch::channel(None);
        tokio::task::spawn_blocking(move || {
            let reason = match running.join() {
                Ok(()) => String::new(),
                Err(ended) => {
                    error!("{ended}");
                    ended.to_string()
                }
            };
            let _ = tell_end.send(Some(reason));
        });
        info!(epoch, "the master has taken charge");
        sources.resume().await;
        if let Some(listen) = config.stratum_listen {
            let guests = GuestConfig { listen, token: config.worker_token.clone(), tasks: tasks.clone() };
            sources.let_guests_in(guests, stop_web.clone()).await.map_err(StartError::Other)?;
        }
        let saving = tokio::spawn({
            let sources = sources.clone();
            async move { sources.keep_saved().await }
        });
        Ok(Self {
            web_addr,
            grpc_addr,
            epoch,
            handle,
            callback,
            stop_web,
            stop_callback,
            stop_link,
            tasks,
            link,
            sources,
            saving,
            ended,
        })
    }

    /// The way to its loop.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the loop has ended by itself; says why.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the loop has ended".into(),
        }
    }

    /// Stops in order: no new requests, the loop between two batches, workers' streams, the broker.
    pub async fn shutdown(self) {
        self.stop_web.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.saving.abort();
        self.sources.shutdown().await;
        let _ = self.handle.stop().await;
        self.stop_callback.cancel();
        self.callback.ended().await;
        self.stop_link.cancel();
        let _ = self.link.await;
    }
}

/// An address that can be connected to: a wildcard means this machine.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    addr
}
