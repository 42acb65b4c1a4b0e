//! A real Monero node with a chain of its own (regtest): nothing leaves the machine.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, ports, until};

/// A wallet address of mainnet, which regtest uses too. Its keys are the curve's base point: everybody knows its secrets.
pub const WALLET: &str =
    "44yQXfkWZNmJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmJ7suhUXwdrDJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmCYrSgjJ";

/// A node; its chain is new with every start.
#[derive(Debug)]
pub struct Monerod {
    port: u16,
    p2p_port: u16,
    options: Vec<String>,
    settings: Vec<(String, String)>,
    process: Option<Process>,
    http: reqwest::Client,
    directory: TempDir,
}

impl Monerod {
    /// A node on which a block takes `difficulty` hashes on average; it is not started.
    ///
    /// # Panics
    /// When there is no room for its data.
    #[must_use]
    pub fn new(difficulty: u64) -> Self {
        let directory = TempDir::new().expect("failed to make a directory for monerod");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build();
        let options = vec![format!("--fixed-difficulty={difficulty}")];
        let http = http.expect("failed to make an HTTP client");
        Self {
            port: ports::free(),
            p2p_port: ports::free(),
            options,
            settings: Vec::new(),
            process: None,
            http,
            directory,
        }
    }

    /// The RandomX key changes every `blocks` blocks, `lag` blocks after the one that it is made of.
    #[must_use]
    pub fn with_epochs(mut self, blocks: u64, lag: u64) -> Self {
        self.settings.push(("SEEDHASH_EPOCH_BLOCKS".into(), blocks.to_string()));
        self.settings.push(("SEEDHASH_EPOCH_LAG".into(), lag.to_string()));
        self
    }

    /// A further option of the command line.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When there is no monerod, or it does not answer.
    pub async fn start(mut self) -> Self {
        self.start_again().await;
        self
    }

    /// Starts it again on the same port, with a new chain.
    ///
    /// # Panics
    /// When there is no monerod, or it does not answer.
    pub async fn start_again(&mut self) {
        let mut command = Command::new("monerod");
        command
            .args(["--regtest", "--offline", "--rpc-bind-ip=127.0.0.1", "--p2p-bind-ip=127.0.0.1", "--no-igd"])
            .args(["--rpc-ssl=disabled", "--no-zmq", "--non-interactive", "--check-updates=disabled"])
            .args(["--disable-dns-checkpoints", "--max-concurrency=1"])
            .arg(format!("--rpc-bind-port={}", self.port))
            .arg(format!("--p2p-bind-port={}", self.p2p_port))
            .arg(format!("--data-dir={}", self.directory.path().join("chain").display()))
            .args(&self.options)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .env("HOME", self.directory.path());
        self.process = Some(Process::start("monerod", self.directory.path(), &mut command));
        until("monerod answers", || async {
            let answer = self.http.post(format!("{}/getheight", self.url())).send().await;
            // One that wants a login is there too.
            answer.map(drop).map_err(|error| format!("{error}; {}", self.process().describe()))
        })
        .await;
    }

    /// The running process.
    ///
    /// # Panics
    /// Before the first start.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("monerod was not started")
    }

    /// Where its RPC is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Calls `method`.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": "0", "method": method, "params": params});
        let sent = self.http.post(format!("{}/json_rpc", self.url())).json(&body).send().await;
        let answer = sent.unwrap_or_else(|error| panic!("monerod: {error}; {}", self.process().describe()));
        answer.json().await.unwrap_or_else(|error| panic!("monerod: {error}"))
    }

    /// How many blocks its chain has.
    pub async fn height(&self) -> u64 {
        self.call("get_info", json!({})).await["result"]["height"].as_u64().unwrap_or_default()
    }

    /// The id of the block at `height`, if there is one.
    pub async fn block_at(&self, height: u64) -> Option<String> {
        let answer = self.call("get_block_header_by_height", json!({"height": height})).await;
        answer["result"]["block_header"]["hash"].as_str().map(str::to_owned)
    }

    /// Makes `count` blocks of its own, as if somebody else had found them.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn generate(&self, count: u64) {
        let params = json!({"amount_of_blocks": count, "wallet_address": WALLET, "starting_nonce": 0});
        let answer = self.call("generateblocks", params).await;
        assert_eq!(answer["result"]["status"], "OK", "{answer}");
    }
}
