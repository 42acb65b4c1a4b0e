//! The stand-in for Gemini and for a local AI as a program: browser tests start it and point a worker at it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use flota_tests::fake_gemini::{FakeGemini, Options};

/// Answers as Gemini (below /v1beta) and as an OpenAI-compatible server (below /v1) do. GET /fake/requests shows what it
/// was sent and whether the client closed early; POST /fake/replies {"model"?, "reply"} scripts what comes next.
#[derive(Debug, Parser)]
#[command(name = "fake-gemini", version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A key to accept; several may be given; without one any.
    #[arg(long = "key")]
    keys: Vec<String>,
    /// A chat model to serve; several may be given.
    #[arg(long = "model")]
    models: Vec<String>,
    /// Calls that a key may make in a minute.
    #[arg(long)]
    per_minute: Option<usize>,
    /// Words of an answer.
    #[arg(long, default_value_t = 12)]
    words: usize,
    /// How fast they come; without it at once.
    #[arg(long)]
    words_per_second: Option<f64>,
    /// The wait before the first word.
    #[arg(long, default_value_t = 0)]
    first_delay_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listen = args.listen;
    let server = FakeGemini::start_with(options(args)?).await.with_context(|| format!("can't listen on {listen}"))?;
    println!("listening on http://{}", server.address());
    println!("FLOTA_GEMINI_BASE_URL={}", server.base_url());
    println!("FLOTA_AI_LOCAL_URL={}", server.local_url());
    Ok(server.wait().await?)
}

fn options(args: Args) -> anyhow::Result<Options> {
    let defaults = Options::default();
    let speed = args.words_per_second;
    ensure!(speed.is_none_or(|speed| speed >= 0.01), "--words-per-second must be at least 0.01");
    Ok(Options {
        listen: args.listen,
        keys: args.keys,
        models: if args.models.is_empty() { defaults.models } else { args.models },
        per_minute: args.per_minute,
        words: args.words,
        word_pause: speed.map_or(Duration::ZERO, |speed| Duration::from_secs_f64(1.0 / speed)),
        first_delay: Duration::from_millis(args.first_delay_ms),
    })
}
