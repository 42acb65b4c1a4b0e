//! A stand-in for a mining pool: speaks Stratum, computes every share once more, and misbehaves on command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flota_randomx::{Cache, Vm};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A block's hashing blob: the nonce stands at 39.
pub const BLOB: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3000000000c6d813a42d3b3b8b99446f0aba451e668b4c72a511cb465cc4dd000ec765a1301";
const NONCE_OFFSET: usize = 39;

/// What a pool does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Nothing.
    #[default]
    Good,
    /// Closes every connection at once.
    HangsUp,
    /// Takes connections and says nothing.
    Silent,
    /// Refuses the login.
    Bans,
    /// Answers with what is no JSON.
    Garbage,
    /// Sends a line that never ends.
    Endless,
    /// Its jobs are of another algorithm.
    OtherAlgorithm,
    /// Its jobs have the target 0.
    TargetZero,
    /// Its jobs have half a blob.
    HalfBlob,
    /// Its jobs have no key.
    NoSeed,
    /// Logs in and gives no job but `null`.
    NullJob,
    /// Refuses every share as too easy.
    LowDifficulty,
    /// Refuses every share as stale.
    Stale,
}

/// A share as it came.
#[derive(Clone, Debug)]
pub struct Share {
    /// Of which job.
    pub job_id: String,
    /// The nonce.
    pub nonce: u32,
    /// Whether its hash was right, and below the job's target.
    pub wins: bool,
}

#[derive(Default)]
struct State {
    manner: Manner,
    job: Value,
    jobs: BTreeMap<String, Value>,
    logins: Vec<Value>,
    shares: Vec<Share>,
    vm: Option<(String, Vm)>,
}

/// A pool on a port of its own.
pub struct FakePool {
    addr: SocketAddr,
    tls: bool,
    state: Arc<Mutex<State>>,
    news: broadcast::Sender<Option<Value>>,
    task: JoinHandle<()>,
}

impl Drop for FakePool {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakePool {
    /// In clear.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// With TLS and the certificate in `directory`, which [`certificate`] made.
    ///
    /// # Panics
    /// When there is no port, or the certificate is none.
    pub async fn start_tls(directory: &Path) -> Self {
        let cert = CertificateDer::from_pem_file(directory.join("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a certificate with its key");
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let (news, _) = broadcast::channel(64);
        let (has_tls, shared, sender) = (tls.is_some(), state.clone(), news.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, news, tls) = (shared.clone(), sender.subscribe(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, state, news).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, state, news).await;
                            }
                        }
                    }
                });
            }
        });
        let pool = Self { addr, tls: has_tls, state, news, task };
        pool.set_job("1", 20, &"11".repeat(32), 100, 0);
        pool
    }

    /// As a source wants it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("stratum+{}://127.0.0.1:{}", if self.tls { "ssl" } else { "tcp" }, self.addr.port())
    }

    /// Behaves so from now on; whoever is connected is thrown out.
    pub fn behave(&self, manner: Manner) {
        lock(&self.state).manner = manner;
        let _ = self.news.send(None);
    }

    /// Behaves so from now on towards whoever is connected.
    pub fn behave_quietly(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// Sends everybody a new job; `top` is the nonce's top byte.
    pub fn set_job(&self, id: &str, difficulty: u64, seed: &str, height: u64, top: u8) {
        let mut blob = BLOB.to_owned();
        let at = 2 * NONCE_OFFSET;
        blob.replace_range(at..at + 8, &format!("000000{top:02x}"));
        // Another height is another block.
        blob.replace_range(at + 8..at + 24, &format!("{height:016x}"));
        let target = u32::MAX / u32::try_from(difficulty).unwrap_or(1);
        let target: String = target.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let job = json!({
            "job_id": id, "blob": blob, "target": target, "algo": "rx/0", "height": height, "seed_hash": seed,
        });
        {
            let mut state = lock(&self.state);
            state.jobs.insert(id.to_owned(), job.clone());
            state.job = job;
        }
        self.say_job();
    }

    /// Sends everybody the newest job, also if they have it.
    pub fn say_job(&self) {
        let job = lock(&self.state).job.clone();
        let _ = self.news.send(Some(json!({"jsonrpc": "2.0", "method": "job", "params": job})));
    }

    /// The logins' parameters so far.
    #[must_use]
    pub fn logins(&self) -> Vec<Value> {
        lock(&self.state).logins.clone()
    }

    /// The shares so far.
    #[must_use]
    pub fn shares(&self) -> Vec<Share> {
        lock(&self.state).shares.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse<S>(stream: S, state: Arc<Mutex<State>>, mut news: broadcast::Receiver<Option<Value>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    let mut logged_in = false;
    loop {
        let answer = tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let shared = state.clone();
                let answered = tokio::task::spawn_blocking(move || answer(&shared, &line)).await;
                match answered {
                    Ok(Reply::Say(text)) => {
                        logged_in = true;
                        Some(text)
                    }
                    Ok(Reply::Nothing) => None,
                    Ok(Reply::HangUp) | Err(_) => return,
                }
            }
            said = news.recv() => match said {
                Ok(Some(message)) if logged_in => Some(message.to_string()),
                Ok(Some(_)) => None,
                Ok(None) | Err(_) => return,
            },
        };
        if let Some(mut text) = answer {
            text.push('\n');
            if write.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

enum Reply {
    Say(String),
    Nothing,
    HangUp,
}

fn answer(state: &Mutex<State>, line: &str) -> Reply {
    let Ok(message) = serde_json::from_str::<Value>(line) else { return Reply::HangUp };
    let (id, params) = (&message["id"], &message["params"]);
    match message["method"].as_str() {
        Some("login") => login(&mut lock(state), id, params),
        Some("submit") => submit(&mut lock(state), id, params),
        Some("keepalived") => Reply::Say(json!({"id": id, "result": {"status": "KEEPALIVED"}}).to_string()),
        _ => Reply::Say(json!({"id": id, "error": {"code": -1, "message": "Method not found"}}).to_string()),
    }
}

fn login(state: &mut State, id: &Value, params: &Value) -> Reply {
    state.logins.push(params.clone());
    let mut job = state.job.clone();
    match state.manner {
        Manner::HangsUp => return Reply::HangUp,
        Manner::Silent => return Reply::Nothing,
        Manner::Garbage => return Reply::Say("HTTP/1.1 400 Bad Request".into()),
        Manner::Endless => return Reply::Say("x".repeat(1_000_000)),
        Manner::Bans => {
            let error = json!({"code": -1, "message": "IP Address currently banned"});
            return Reply::Say(json!({"id": id, "error": error}).to_string());
        }
        Manner::OtherAlgorithm => job["algo"] = json!("cn/r"),
        Manner::TargetZero => job["target"] = json!("00000000"),
        Manner::HalfBlob => job["blob"] = json!(&BLOB[..60]),
        Manner::NoSeed => job["seed_hash"] = Value::Null,
        Manner::NullJob => job = json!({"job_id": null}),
        Manner::Good | Manner::LowDifficulty | Manner::Stale => {}
    }
    let result = json!({"id": "session-1", "job": job, "extensions": ["algo", "keepalive"], "status": "OK"});
    Reply::Say(json!({"id": id, "jsonrpc": "2.0", "error": null, "result": result}).to_string())
}

fn submit(state: &mut State, id: &Value, params: &Value) -> Reply {
    let share = judge(state, params);
    let refusal = match (&share, state.manner) {
        (None, _) => Some("Invalid job id"),
        (_, Manner::LowDifficulty) => Some("Low difficulty share"),
        (_, Manner::Stale) => Some("Stale share"),
        (Some(share), _) if !share.wins => Some("Low difficulty share"),
        (Some(_), _) => None,
    };
    state.shares.extend(share);
    Reply::Say(match refusal {
        Some(message) => json!({"id": id, "error": {"code": -1, "message": message}}).to_string(),
        None => json!({"id": id, "error": null, "result": {"status": "OK"}}).to_string(),
    })
}

fn judge(state: &mut State, params: &Value) -> Option<Share> {
    let job_id = params["job_id"].as_str()?.to_owned();
    let job = state.jobs.get(&job_id)?;
    let nonce: [u8; 4] = bytes(params["nonce"].as_str()?)?.try_into().ok()?;
    let mut blob = bytes(job["blob"].as_str()?)?;
    blob[NONCE_OFFSET..NONCE_OFFSET + 4].copy_from_slice(&nonce);
    let seed = job["seed_hash"].as_str()?.to_owned();
    let target = u32::from_le_bytes(bytes(job["target"].as_str()?)?.try_into().ok()?);
    if state.vm.as_ref().is_none_or(|(warm, _)| *warm != seed) {
        let cache = Arc::new(Cache::new(&bytes(&seed)?).ok()?);
        state.vm = Some((seed, Vm::light(&cache).ok()?));
    }
    let hash = state.vm.as_mut()?.1.hash(&blob);
    let top = u32::from_le_bytes([hash[28], hash[29], hash[30], hash[31]]);
    let right = bytes(params["result"].as_str()?)? == hash;
    Some(Share { job_id, nonce: u32::from_le_bytes(nonce), wins: right && top <= target })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    hex::decode(hex).ok()
}

/// Makes a certificate for 127.0.0.1 in `directory`, and gives its SHA-256 in hex.
///
/// # Panics
/// When openssl does not do it.
#[must_use]
pub fn certificate(directory: &Path) -> String {
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pool"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let shown = std::process::Command::new("openssl")
        .args(["x509", "-in", "cert.pem", "-noout", "-fingerprint", "-sha256"])
        .current_dir(directory)
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    text.trim().rsplit('=').next().unwrap_or_default().to_lowercase()
}
