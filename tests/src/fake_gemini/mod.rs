//! A stand-in for Gemini and for an OpenAI-compatible server: answers as `guide/gemini.md` says the real ones do, fails in every
//! way they can fail, and keeps what it was sent. In a test it lives in the process; `fake-gemini` is the same as a program.

mod errors;
mod gemini;
mod openai;
mod reply;
mod serve;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use errors::Trouble;
pub use reply::{End, Piece, Reply, STAMP, Script, stamp};
pub use state::{Ended, Seen};

use state::State;

/// What it does for everybody who is not told otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The keys it accepts; none: any.
    pub keys: Vec<String>,
    /// The chat models that it serves.
    pub models: Vec<String>,
    /// How many chat calls a key may make in a minute.
    pub per_minute: Option<usize>,
    /// How many words an answer without a script has.
    pub words: usize,
    /// The pause between two words of such an answer.
    pub word_pause: Duration,
    /// The wait before the first of them.
    pub first_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys: Vec::new(),
            models: ["gemini-3.5-flash-lite", "gemini-3.5-pro", "local-model"].map(str::to_owned).to_vec(),
            per_minute: None,
            words: 12,
            word_pause: Duration::ZERO,
            first_delay: Duration::ZERO,
        }
    }
}

/// A stand-in that runs until it is dropped.
#[derive(Debug)]
pub struct FakeGemini {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<std::io::Result<()>>,
}

impl FakeGemini {
    /// Starts one with the default options on a free port of loopback.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn start_with(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(options));
        let router = serve::router(state.clone());
        // Each word leaves at once.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, state, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `FLOTA_GEMINI_BASE_URL`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1beta", self.address)
    }

    /// For `FLOTA_AI_LOCAL_URL`.
    #[must_use]
    pub fn local_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next chat or embedding call without a script of its model is answered so; several queue up.
    pub fn next(&self, reply: impl Into<Reply>) {
        self.state.queue(reply.into());
    }

    /// Every call of `model` is answered so.
    pub fn for_model(&self, model: &str, reply: impl Into<Reply>) {
        self.state.set_model(model.to_owned(), reply.into());
    }

    /// The next call whose last question is `question` is answered so; several queue up.
    pub fn for_question(&self, question: &str, reply: impl Into<Reply>) {
        self.state.queue_question(question.to_owned(), reply.into());
    }

    /// The answer that holds ([`Script::holds`]) goes on to where it holds next.
    pub fn go_on(&self) {
        self.state.go_on();
    }

    /// Everything it was sent, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state.seen()
    }

    /// How many calls are being answered now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state.open()
    }

    /// How the latest request ended.
    #[must_use]
    pub fn last_ended(&self) -> Option<Ended> {
        self.state.last_ended()
    }

    /// The chat and embedding calls among it.
    #[must_use]
    pub fn calls(&self) -> Vec<Seen> {
        self.requests().into_iter().filter(|seen| seen.method == "POST").collect()
    }

    /// Waits until the server ends, which it does by an error only.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn wait(mut self) -> std::io::Result<()> {
        (&mut self.server).await.map_err(std::io::Error::other)?
    }
}

impl Drop for FakeGemini {
    fn drop(&mut self) {
        self.server.abort();
    }
}
