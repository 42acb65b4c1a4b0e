//! Measures what the fleet adds to an AI's answer, between a browser's socket and the provider: the first text of lone questions,
//! alone and beside many open streams, many questions at the same moment, and how soon Stop closes the connection to the provider.
//! Prints what it measured; asserts only that it is right. The stand-in and the clients run in this process, on the same machine as
//! the fleet: what they cost is printed too.

mod client;
mod cost;

use std::time::Duration;

use clap::Parser;
use client::{Plan, Seen, age};
use cost::Cpu;
use flota_common::clock;
use flota_tests::fake_gemini::{End, Ended, FakeGemini, Piece, STAMP, Script};
use flota_tests::node::workers_ready;
use flota_tests::socket::Socket;
use flota_tests::{Node, Rest, until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Of the many streams.
const MODEL: &str = "gemini-3.5-flash-lite";
/// Of lone questions.
const LONE_MODEL: &str = "gemini-3.5-pro";

/// Measures a `flota up` of its own, started from FLOTA_BIN.
#[derive(Debug, Parser)]
struct Args {
    /// Lone questions, of each measurement.
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
    /// In how many milliseconds the streams are opened beside which lone questions are asked.
    #[arg(long, default_value_t = 8000)]
    ramp_ms: u64,
    /// What is measured, with commas: lone, stops, beside, burst.
    #[arg(long, value_delimiter = ',', default_value = "lone,stops,beside,burst")]
    only: Vec<String>,
}

fn show(what: &str, mut times: Vec<Duration>) {
    if times.is_empty() {
        return println!("{what}: no samples");
    }
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

fn stamped(pieces: usize, pause_ms: u64) -> Script {
    let texts = (0..pieces).map(|_| Piece::Text(format!("{STAMP} ")));
    let script = Script::of(texts.chain([Piece::Finish("STOP".into())]));
    Script { stamped: true, pause_ms, ..script }
}

async fn next_delta(socket: &mut Socket) -> Value {
    loop {
        let event = socket.event("job-event").await;
        if event["type"] == "delta" {
            return event;
        }
    }
}

/// The first text of an answer, and whether it was the whole of it: one that has ended before anybody looked is told at once.
async fn first_text(socket: &mut Socket) -> (String, bool) {
    loop {
        let (name, payload) = socket.next().await;
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        if name == "ai-response" {
            assert_eq!(payload["finish"], "complete", "{payload}");
            return (text(&payload["response"]), true);
        }
        if name == "job-event" && payload["type"] == "delta" {
            return (text(&payload["data"]["text"]), false);
        }
    }
}

/// Asks one question after the other, as long as `go_on`.
async fn lone(port: u16, go_on: impl Fn(usize) -> bool) -> Seen {
    let mut socket = Socket::connect(port).await;
    let mut seen = Seen::default();
    for number in 0.. {
        if !go_on(number) {
            break;
        }
        let begun = clock::instant();
        socket.ask("user-query", &json!({"query": "x", "model": LONE_MODEL})).await;
        let (text, ended) = first_text(&mut socket).await;
        let took = begun.elapsed();
        // The first ones open connections and fill caches.
        if number >= 20 {
            seen.firsts.push(took);
            seen.delays.extend(age(&text));
        }
        if !ended {
            socket.event("ai-response").await;
        }
    }
    seen
}

/// Starts the clients, which open their streams within `ramp`.
fn start(port: u16, args: &Args, ramp: Duration) -> Vec<JoinHandle<Seen>> {
    let share = args.streams / args.clients;
    let every = ramp / u32::try_from(share.max(1)).unwrap_or(u32::MAX);
    let plan = |client: usize| {
        let after = every.mul_f64(client as f64 / args.clients as f64);
        Plan { streams: share, pieces: args.pieces, every, after }
    };
    (0..args.clients).map(|client| tokio::spawn(client::run(port, plan(client)))).collect()
}

async fn all(tasks: Vec<JoinHandle<Seen>>) -> Seen {
    let mut seen = Seen::default();
    for task in tasks {
        seen.add(task.await.expect("a client failed"));
    }
    seen
}

/// What flota and this process have used so far.
fn used(node: &Node) -> [Cpu; 2] {
    [Cpu::of(node.process().id()), Cpu::own()]
}

fn show_cost(node: &Node, [flota, own]: &[Cpu; 2], most: usize, streams: usize, took: Duration) {
    let [flota_now, own_now] = used(node);
    let (flota, own) = (flota_now.since(flota), own_now.since(own));
    println!(
        "  {streams} streams, at most {most} open at the provider at once, {:.1} s; CPU: flota {:.2} s, stand-in and browsers {:.2} s; flota \
         has {} KiB resident",
        took.as_secs_f64(),
        flota.total(),
        own.total(),
        node.process().resident_kib().unwrap_or(0)
    );
    println!("  flota by threads, CPU s: {}", flota.threads());
}

/// Lone questions while all streams are open.
async fn beside(fake: &FakeGemini, node: &Node, args: &Args) {
    fake.for_model(MODEL, stamped(args.pieces, args.pause_ms));
    let before = used(node);
    let begun = clock::instant();
    let tasks = start(node.web_port, args, Duration::from_millis(args.ramp_ms));
    let mut most = 0;
    let nearly_all = || fake.open() * 100 >= args.streams * 99;
    while !nearly_all() && !tasks.iter().any(JoinHandle::is_finished) {
        most = most.max(fake.open());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Questions that are asked when streams have begun to end say nothing.
    let alone = lone(node.web_port, |number| number < args.lone + 20 && nearly_all()).await;
    most = most.max(fake.open());
    let seen = all(tasks).await;
    show("lone question beside all streams, from asking to the first text in the browser", alone.firsts);
    show("lone question beside all streams, from the provider's write to the text in the browser", alone.delays);
    show("streams opened one after the other, from asking to the first text in the browser", seen.firsts);
    show("streams opened one after the other, from the provider's write to the text in the browser", seen.delays);
    show_cost(node, &before, most, args.streams, begun.elapsed());
}

/// All questions at the same moment.
async fn burst(fake: &FakeGemini, node: &Node, args: &Args) {
    fake.for_model(MODEL, stamped(args.pieces, args.pause_ms));
    let before = used(node);
    let begun = clock::instant();
    let tasks = start(node.web_port, args, Duration::ZERO);
    let mut most = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        most = most.max(fake.open());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = all(tasks).await;
    show("all at the same moment, from asking to the first text in the browser", seen.firsts);
    show("all at the same moment, from the provider's write to the text in the browser", seen.delays);
    show_cost(node, &before, most, args.streams, begun.elapsed());
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

/// Waits until a worker has announced `model`.
async fn served(rest: &Rest, model: &str) {
    until("the model is announced", || async {
        let models = rest.get("/models").await.expect(200).body;
        let items = models["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if items.iter().any(|item| item["model"] == model) { Ok(()) } else { Err(models) }
    })
    .await;
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let fake = FakeGemini::start().await.expect("failed to start the stand-in");
    let node = Node::up().with("GEMINI_API_KEY", "k").with("FLOTA_GEMINI_BASE_URL", fake.base_url());
    let node =
        node.with("FLOTA_WORKER_SLOTS", format!("ai={}", args.streams + 10)).with("FLOTA_LOG", "warn").start().await;
    workers_ready(&node.rest(), 1).await;
    served(&node.rest(), LONE_MODEL).await;
    fake.for_model(LONE_MODEL, stamped(1, 0));
    let wanted = |what: &str| args.only.iter().any(|only| only == what);
    if wanted("lone") {
        let seen = lone(node.web_port, |number| number < args.lone + 20).await;
        show("lone question, from asking to the first text in the browser (the provider answers at once)", seen.firsts);
        show("lone question, from the provider's write to the text in the browser", seen.delays);
    }
    if wanted("stops") {
        stops(&fake, node.web_port, args.stops).await;
    }
    if wanted("beside") {
        beside(&fake, &node, &args).await;
    }
    if wanted("burst") {
        burst(&fake, &node, &args).await;
    }
}
