//! A Monero node over its RPC: only what mining needs.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A node that verifies a block answers late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer is a template at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum NodeError {
    /// No answer.
    #[error("the node does not answer: {0}")]
    Away(String),
    /// An answer that says no.
    #[error("the node says: {message} ({code})")]
    Refused {
        /// Its number.
        code: i64,
        /// Its words.
        message: String,
    },
    /// An answer that can't be understood.
    #[error("the node answers nonsense: {0}")]
    Nonsense(String),
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tip {
    /// How many blocks it has.
    pub height: u64,
    /// The last one's id.
    pub hash: String,
}

/// What a node says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Info {
    /// `mainnet`, `testnet`, `stagenet` or `fakechain`.
    #[serde(default)]
    pub nettype: String,
    /// It has the whole chain.
    #[serde(default = "yes")]
    pub synchronized: bool,
    /// How many blocks it has.
    pub height: u64,
    /// How many its peers have.
    #[serde(default)]
    pub target_height: u64,
}

fn yes() -> bool {
    true
}

/// `get_block_template`
#[derive(Clone, Debug, Deserialize)]
pub struct RawTemplate {
    /// The block, with room for the nonce.
    pub blocktemplate_blob: String,
    /// What is hashed.
    pub blockhashing_blob: String,
    /// The low 64 bits.
    #[serde(default)]
    pub difficulty: u64,
    /// The whole, in hex.
    #[serde(default)]
    pub wide_difficulty: String,
    /// Of the block that is looked for.
    pub height: u64,
    /// The block before.
    pub prev_hash: String,
    /// The RandomX key.
    #[serde(default)]
    pub seed_hash: String,
    /// The one that follows, when it is near.
    #[serde(default)]
    pub next_seed_hash: String,
}

#[derive(Deserialize)]
struct HeaderAnswer {
    block_header: BlockHeader,
}

#[derive(Deserialize)]
struct BlockHeader {
    hash: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    http: Client,
    url: String,
    login: Option<(String, SecretString)>,
}

impl Node {
    /// The node at `url`, with its `--rpc-login` where it has one.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: &str, login: Option<(String, SecretString)>) -> Result<Self, String> {
        let http = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), login })
    }

    /// Where its chain ends.
    pub async fn tip(&self) -> Result<Tip, NodeError> {
        parse(&self.post("/getheight", &json!({})).await?)
    }

    /// What it says of itself.
    pub async fn info(&self) -> Result<Info, NodeError> {
        self.call("get_info", json!({})).await
    }

    /// A block to be completed that pays `wallet`; no two are alike.
    pub async fn template(&self, wallet: &str) -> Result<RawTemplate, NodeError> {
        let extra_nonce = format!("{:016x}", rand::random::<u64>());
        self.call("get_block_template", json!({ "wallet_address": wallet, "extra_nonce": extra_nonce })).await
    }

    /// Hands over a complete block. That it is taken does not mean that it is on the main chain.
    pub async fn submit(&self, block: &str) -> Result<(), NodeError> {
        self.call::<Value>("submit_block", json!([block])).await.map(drop)
    }

    /// The id of the main chain's block at `height`, or `None` where the chain is not that long.
    pub async fn block_at(&self, height: u64) -> Result<Option<String>, NodeError> {
        match self.call::<HeaderAnswer>("get_block_header_by_height", json!({ "height": height })).await {
            Ok(answer) => Ok(Some(answer.block_header.hash)),
            // Too big a height.
            Err(NodeError::Refused { code: -2, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, NodeError> {
        let body = json!({ "jsonrpc": "2.0", "id": "0", "method": method, "params": params });
        let answer: Answer<T> = parse(&self.post("/json_rpc", &body).await?)?;
        match answer {
            Answer { error: Some(AnswerError { code, message }), .. } => {
                Err(NodeError::Refused { code, message: bounded(&message) })
            }
            Answer { result: Some(result), .. } => Ok(result),
            Answer { result: None, error: None } => Err(NodeError::Nonsense("neither result nor error".into())),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Vec<u8>, NodeError> {
        let send = |authorization: Option<String>| {
            let request = self.http.post(format!("{}{path}", self.url)).json(body);
            match authorization {
                Some(value) => request.header(reqwest::header::AUTHORIZATION, value),
                None => request,
            }
        };
        let away = |error: reqwest::Error| NodeError::Away(root_cause(&error));
        let mut response = send(None).send().await.map_err(away)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let Some((user, password)) = &self.login else {
                return Err(NodeError::Away("it wants a login: give user and password".into()));
            };
            let challenges = response.headers().get_all(reqwest::header::WWW_AUTHENTICATE).iter();
            let answer = challenges
                .filter_map(|challenge| challenge.to_str().ok())
                .find_map(|challenge| super::digest::answer(challenge, user, password.expose_secret(), "POST", path));
            response = send(answer).send().await.map_err(away)?;
        }
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(NodeError::Away("it refuses user and password".into())),
            status => return Err(NodeError::Away(format!("HTTP status {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(NodeError::Nonsense("an answer of more than 16 MiB".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NodeError> {
    serde_json::from_slice(bytes).map_err(|error| NodeError::Nonsense(error.to_string()))
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What lies at the bottom of an error, which says most: "connection refused", not the address once more.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { "no answer in time".into() } else { bounded(&cause.to_string()) }
}
