//! A browser that asks many questions over one socket. It looks at packets without parsing them: it shares the cores with what
//! it measures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_tests::fake_gemini::{STAMP, stamp};
use flota_tests::socket::Socket;

/// One piece of text: the time of its writing and a space.
pub const PIECE: usize = STAMP.len() + 1;

/// What one client has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// From asking to the first text.
    pub firsts: Vec<Duration>,
    /// From the provider's write to the text here, of all pieces behind the first.
    pub delays: Vec<Duration>,
}

impl Seen {
    /// Adds what another has seen.
    pub fn add(&mut self, other: Self) {
        self.firsts.extend(other.firsts);
        self.delays.extend(other.delays);
    }
}

/// What is asked, and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Questions.
    pub streams: usize,
    /// Pieces of text of each answer.
    pub pieces: usize,
    /// Between two questions.
    pub every: Duration,
    /// Before the first.
    pub after: Duration,
}

struct Stream {
    asked: Instant,
    pieces: usize,
}

struct Client {
    plan: Plan,
    socket: Socket,
    asked: Vec<Instant>,
    streams: HashMap<String, Stream>,
    ended: usize,
    seen: Seen,
}

/// Asks as `plan` says, over a socket of its own.
///
/// # Panics
/// When an answer is not what the stand-in wrote.
pub async fn run(port: u16, plan: Plan) -> Seen {
    let socket = Socket::connect(port).await;
    let (asked, streams, seen) = (Vec::new(), HashMap::new(), Seen::default());
    let mut client = Client { plan, socket, asked, streams, ended: 0, seen };
    let mut ask_at = tokio::time::Instant::now() + plan.after;
    while client.ended < plan.streams {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(ask_at), if client.asked.len() < plan.streams => {
                client.ask().await;
                ask_at += plan.every;
            }
            packet = client.socket.text() => client.take(&packet),
        }
    }
    let whole = client.streams.values().all(|stream| stream.pieces == plan.pieces);
    assert!(whole && client.streams.len() == plan.streams, "every piece was streamed");
    client.seen
}

impl Client {
    async fn ask(&mut self) {
        let packet = format!("42{}[\"user-query\",{{\"query\":\"x\"}}]", self.asked.len());
        self.asked.push(clock::instant());
        self.socket.send(packet).await;
    }

    fn take(&mut self, packet: &str) {
        if let Some(ack) = packet.strip_prefix("43") {
            let number = ack.split('[').next().and_then(|number| number.parse::<usize>().ok());
            let asked = number.and_then(|number| self.asked.get(number)).copied();
            let job = field(packet, "\"jobId\":\"").unwrap_or_else(|| panic!("refused: {packet}"));
            let asked = asked.unwrap_or_else(|| panic!("nobody asked for {packet}"));
            self.streams.insert(job.to_owned(), Stream { asked, pieces: 0 });
        } else if packet.starts_with("42[\"ai-response\"") {
            assert!(packet.contains("\"finish\":\"complete\""), "{packet}");
            let answer = field(packet, "\"response\":\"").unwrap_or_default();
            assert_eq!(answer.len(), self.plan.pieces * PIECE, "{packet}");
            self.ended += 1;
        } else if packet.starts_with("42[\"job-event\"") && packet.contains("\"type\":\"delta\"") {
            self.delta(packet);
        }
    }

    fn delta(&mut self, packet: &str) {
        let text = field(packet, "\"text\":\"").unwrap_or_default();
        let job = field(packet, "\"jobId\":\"").unwrap_or_default();
        let stream = self.streams.get_mut(job).unwrap_or_else(|| panic!("of no question: {packet}"));
        if stream.pieces == 0 {
            self.seen.firsts.push(stream.asked.elapsed());
        } else {
            self.seen.delays.extend(age(text));
        }
        stream.pieces += text.len() / PIECE;
    }
}

/// What stands behind `name` up to the next quotation mark; nothing here has one within.
fn field<'a>(packet: &'a str, name: &str) -> Option<&'a str> {
    let begin = packet.find(name)? + name.len();
    packet.get(begin..)?.split('"').next()
}

/// How long ago `text` was written by the stand-in.
pub fn age(text: &str) -> Option<Duration> {
    let micros = |text: &str| text.parse::<u64>().ok();
    Some(Duration::from_micros(micros(&stamp())?.saturating_sub(micros(text.get(..STAMP.len())?)?)))
}
