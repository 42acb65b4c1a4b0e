//! Measures what the fleet adds to an AI's answer, between a browser's socket and the provider: the first text of lone questions,
//! many streams at once, and how soon Stop closes the connection to the provider. Prints what it measured; asserts only that it
//! is right. The stand-in and the clients run in this process, on the same machine as the fleet.

use std::time::{Duration, Instant};

use clap::Parser;
use flota_common::clock;
use flota_tests::Node;
use flota_tests::fake_gemini::{End, Ended, FakeGemini, Piece, STAMP, Script, stamp};
use flota_tests::node::workers_ready;
use flota_tests::socket::Socket;
use serde_json::{Value, json};

const MODEL: &str = "gemini-3.5-flash-lite";

/// Measures a `flota up` of its own, started from FLOTA_BIN.
#[derive(Debug, Parser)]
struct Args {
    /// Lone questions.
    #[arg(long, default_value_t = 300)]
    lone: usize,
    /// Streams at once.
    #[arg(long, default_value_t = 2000)]
    streams: usize,
    /// Browser sockets that they are shared among.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Pieces of text of a stream.
    #[arg(long, default_value_t = 40)]
    pieces: usize,
    /// Milliseconds between them.
    #[arg(long, default_value_t = 500)]
    pause_ms: u64,
    /// Questions that are stopped.
    #[arg(long, default_value_t = 100)]
    stops: usize,
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1000.0;
    println!(
        "{what}: {} samples, p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        times.len(),
        at(50),
        at(95),
        at(99),
        at(100)
    );
}

/// How long ago `text` was written by the stand-in.
fn age(text: &str) -> Option<Duration> {
    let micros = |text: &str| text.parse::<u64>().ok();
    Some(Duration::from_micros(micros(&stamp())?.saturating_sub(micros(text.get(..STAMP.len())?)?)))
}

fn stamped(pieces: usize, pause_ms: u64) -> Script {
    let texts = (0..pieces).map(|_| Piece::Text(format!("{STAMP} ")));
    let script = Script::of(texts.chain([Piece::Finish("STOP".into())]));
    Script { stamped: true, pause_ms, ..script }
}

async fn lone(fake: &FakeGemini, port: u16, count: usize) {
    fake.for_model(MODEL, stamped(1, 0));
    let mut socket = Socket::connect(port).await;
    let (mut first, mut back) = (Vec::new(), Vec::new());
    for number in 0..count + 20 {
        let begun = clock::instant();
        socket.ask("user-query", &json!({"query": "x"})).await;
        let delta = next_delta(&mut socket).await;
        let took = begun.elapsed();
        // The first ones open connections and fill caches.
        if number >= 20 {
            first.push(took);
            back.extend(age(delta["data"]["text"].as_str().unwrap_or_default()));
        }
        socket.event("ai-response").await;
    }
    show("lone question, from asking to the first text in the browser (the provider answers at once)", first);
    show("lone question, from the provider's write to the text in the browser", back);
}

async fn next_delta(socket: &mut Socket) -> Value {
    loop {
        let event = socket.event("job-event").await;
        if event["type"] == "delta" {
            return event;
        }
    }
}

async fn one_client(port: u16, streams: usize, pieces: usize) -> (Vec<Duration>, Vec<Duration>) {
    let mut socket = Socket::connect(port).await;
    let (mut firsts, mut delays) = (Vec::new(), Vec::new());
    let mut begun: Vec<(String, Instant, usize)> = Vec::new();
    for _ in 0..streams {
        let at = clock::instant();
        let ack = socket.ask("user-query", &json!({"query": "x"})).await;
        begun.push((ack["jobId"].as_str().unwrap_or_default().to_owned(), at, 0));
    }
    let mut ended = 0;
    while ended < streams {
        let (name, payload) = socket.next().await;
        if name == "ai-response" {
            assert_eq!(payload["finish"], "complete", "{payload}");
            let text = payload["response"].as_str().unwrap_or_default();
            assert_eq!(text.len(), pieces * (STAMP.len() + 1), "{text}");
            ended += 1;
        } else if name == "job-event" && payload["type"] == "delta" {
            let Some(stream) = begun.iter_mut().find(|(job, ..)| payload["jobId"] == job.as_str()) else { continue };
            let text = payload["data"]["text"].as_str().unwrap_or_default();
            if stream.2 == 0 {
                firsts.push(stream.1.elapsed());
            } else {
                delays.extend(age(text));
            }
            stream.2 += text.len() / (STAMP.len() + 1);
        }
    }
    assert!(begun.iter().all(|(.., seen)| *seen == pieces), "every piece was streamed");
    (firsts, delays)
}

async fn many(fake: &FakeGemini, node: &Node, args: &Args) {
    fake.for_model(MODEL, stamped(args.pieces, args.pause_ms));
    let port = node.web_port;
    let (share, pieces) = (args.streams / args.clients, args.pieces);
    let cpu = cpu_seconds(node);
    let begun = clock::instant();
    let tasks: Vec<_> = (0..args.clients).map(|_| tokio::spawn(one_client(port, share, pieces))).collect();
    let mut most = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        most = most.max(fake.open());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut firsts, mut delays) = (Vec::new(), Vec::new());
    for task in tasks {
        let (first, delay) = task.await.expect("a client failed");
        firsts.extend(first);
        delays.extend(delay);
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{} streams, at most {most} open at the provider at once, {took:.1} s, {:.1} CPU s of flota, {} KiB resident",
        args.streams,
        cpu_seconds(node) - cpu,
        node.process().resident_kib().unwrap_or(0)
    );
    show("many streams, from asking to the first text in the browser", firsts);
    show("many streams, from the provider's write to the text in the browser", delays);
}

/// Of the fleet's process, as the kernel counts it.
fn cpu_seconds(node: &Node) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.process().id())).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

async fn stops(fake: &FakeGemini, port: u16, count: usize) {
    fake.for_model(MODEL, Script::unfinished(&["half"]).end(End::Stall));
    let mut socket = Socket::connect(port).await;
    let mut times = Vec::new();
    for _ in 0..count {
        let job = socket.ask("user-query", &json!({"query": "x"})).await["jobId"].clone();
        next_delta(&mut socket).await;
        let begun = clock::instant();
        let wish = json!({ "jobId": job });
        let cancelled = socket.ask("job-cancel", &wish);
        let closed = async {
            while fake.last_ended() != Some(Ended::Closed) {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            begun.elapsed()
        };
        let (_, took) = tokio::join!(cancelled, closed);
        times.push(took);
        socket.event("ai-response").await;
    }
    show("stop, from the browser's word to the closed connection at the provider", times);
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let fake = FakeGemini::start().await.expect("failed to start the stand-in");
    let node = Node::up().with("GEMINI_API_KEY", "k").with("FLOTA_GEMINI_BASE_URL", fake.base_url());
    let node =
        node.with("FLOTA_WORKER_SLOTS", format!("ai={}", args.streams + 10)).with("FLOTA_LOG", "warn").start().await;
    workers_ready(&node.rest(), 1).await;
    lone(&fake, node.web_port, args.lone).await;
    stops(&fake, node.web_port, args.stops).await;
    many(&fake, &node, &args).await;
}
