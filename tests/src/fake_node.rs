//! A stand-in for a Monero node that is wrong in every way that nodes are.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fake_pool::BLOB;

const PREV: &str = "418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3";
const BLOCK: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e300000000023d01ff0101808080f0ffff07030d3e46a726c5e02a0c9abbf75ed0159cfce7fddb3e0e6ebf04982357807c066fc82b01aaf7c2df5ee52ebab721301cf1b8dc7b5e095230b5f828c21afac40587cf2a24020800000000000000000000";

/// What a node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing; but it takes no block.
    Good,
    /// It follows another chain.
    Testnet,
    /// It lacks half the chain.
    Synchronising,
    /// Its templates have the difficulty 0.
    NoDifficulty,
    /// Its templates have half a blob.
    HalfBlob,
    /// Its template and what is to be hashed are of different blocks.
    Mismatch,
    /// Its templates have no key.
    NoSeed,
    /// It refuses to make templates.
    Refuses,
    /// It has a new block, and its templates have a difficulty below 0.
    NewBlockNegative,
    /// It has a new block, and makes no template that anybody lives to see.
    NewBlockSlow,
    /// It has a new block, and its templates go on with the old one.
    NewBlockOldTemplate,
    /// It answers what is no JSON.
    Garbage,
    /// It answers 500.
    Broken,
    /// It does not answer.
    Silent,
}

/// A node on a port of its own.
pub struct FakeNode {
    url: String,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeNode {
    /// One that is good.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start() -> Self {
        let manner = Arc::new(Mutex::new(Manner::Good));
        let router =
            Router::new().route("/getheight", post(height)).route("/json_rpc", post(call)).with_state(manner.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, manner, task }
    }

    /// Where its RPC is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Behaves so from now on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }
}

type Shared = State<Arc<Mutex<Manner>>>;

fn manner(state: &Shared) -> Manner {
    *state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn height(state: Shared) -> Response {
    match manner(&state) {
        Manner::Garbage => "<html>".into_response(),
        Manner::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Manner::Silent => std::future::pending().await,
        Manner::Good => Json(json!({"hash": PREV, "height": 100, "status": "OK"})).into_response(),
        // Each manner is a block of its own, so that a new template is asked for.
        other => Json(json!({"hash": format!("{:064x}", other as u8), "height": 100, "status": "OK"})).into_response(),
    }
}

async fn call(state: Shared, Json(request): Json<Value>) -> Json<Value> {
    let manner = manner(&state);
    let answer = |result: Value| Json(json!({"id": "0", "jsonrpc": "2.0", "result": result}));
    let refusal = |message: &str| Json(json!({"id": "0", "jsonrpc": "2.0", "error": {"code": -9, "message": message}}));
    match request["method"].as_str() {
        Some("get_info") => answer(info(manner)),
        Some("get_block_template") if manner == Manner::Refuses => refusal("Core is busy"),
        Some("get_block_template") if manner == Manner::NewBlockSlow => std::future::pending().await,
        Some("get_block_template") => answer(template(manner)),
        _ => refusal("not here"),
    }
}

fn info(manner: Manner) -> Value {
    let nettype = if manner == Manner::Testnet { "testnet" } else { "mainnet" };
    let synchronized = manner != Manner::Synchronising;
    json!({"nettype": nettype, "synchronized": synchronized, "height": 100, "target_height": 0, "status": "OK"})
}

fn template(manner: Manner) -> Value {
    let mut template = json!({
        "blocktemplate_blob": BLOCK, "blockhashing_blob": BLOB, "difficulty": 1_000_000_000_u64,
        "wide_difficulty": "0x3b9aca00", "height": 100, "prev_hash": PREV, "seed_hash": PREV, "next_seed_hash": "",
    });
    match manner {
        Manner::NoDifficulty => template["wide_difficulty"] = json!("0x0"),
        Manner::HalfBlob => template["blockhashing_blob"] = json!(&BLOB[..60]),
        Manner::Mismatch => template["blocktemplate_blob"] = json!(BLOCK.replacen("1010", "1011", 1)),
        Manner::NoSeed => template["seed_hash"] = json!(""),
        Manner::NewBlockNegative => template["difficulty"] = json!(-5),
        _ => {}
    }
    template
}
