//! One connection to a pool: login, jobs in, shares out, signs of life. Ends with the reason.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::sources::PoolConfig;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::stream::{self, Stream};
use super::wire::{self, LoginAnswer, Message, RawJob};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pool may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Not a word for so long: the pool is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// What became of a share that was never answered.
const LOST: &str = "the connection was lost before the answer";
/// No message is longer.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A share on its way to the pool.
#[derive(Clone, Debug)]
pub struct Share {
    /// The pool's name for the job.
    pub job_id: String,
    /// The nonce.
    pub nonce: u32,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// What happens at a pool.
#[derive(Debug)]
pub enum Said {
    /// Its newest job.
    Job(RawJob),
    /// It took a share, or says why not.
    Share(Result<(), String>),
    /// The connection ended, and why.
    Ended(String),
}

/// Who is told what happens at a pool.
#[derive(Clone, Debug)]
pub struct Teller {
    /// Which pool.
    pub pool: usize,
    /// Which connection to it.
    pub session: u64,
    /// Where to.
    pub sender: mpsc::Sender<(usize, u64, Said)>,
}

impl Teller {
    async fn tell(&self, said: Said) -> Result<(), String> {
        let sent = self.sender.send((self.pool, self.session, said)).await;
        sent.map_err(|_| "nobody listens".to_owned())
    }
}

/// Talks to `pool` until something is wrong, or no shares can come any more.
pub async fn talk(pool: PoolConfig, shares: mpsc::Receiver<Share>, teller: Teller) {
    let reason = converse(&pool, shares, &teller).await;
    let _ = teller.tell(Said::Ended(reason)).await;
}

async fn converse(pool: &PoolConfig, mut shares: mpsc::Receiver<Share>, teller: &Teller) -> String {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, stream::connect(pool));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error,
        Err(_) => return "no connection in time".into(),
    };
    let (read, write) = tokio::io::split(stream);
    let mut talk = Talk {
        read: BufReader::new(read),
        write,
        session: String::new(),
        next: 1,
        open: BTreeMap::new(),
        keepalive: false,
        teller: teller.clone(),
    };
    match talk.run(pool, &mut shares).await {
        Ok(()) => String::new(),
        Err(reason) => {
            // What was never answered was not accepted.
            for _ in talk.open.values().filter(|open| open.share) {
                let _ = talk.teller.tell(Said::Share(Err(LOST.into()))).await;
            }
            reason
        }
    }
}

struct Open {
    at: Instant,
    share: bool,
}

struct Talk {
    read: BufReader<tokio::io::ReadHalf<Stream>>,
    write: tokio::io::WriteHalf<Stream>,
    session: String,
    next: u64,
    open: BTreeMap<u64, Open>,
    keepalive: bool,
    teller: Teller,
}

impl Talk {
    async fn run(&mut self, pool: &PoolConfig, shares: &mut mpsc::Receiver<Share>) -> Result<(), String> {
        let mut line = Vec::new();
        let mut has_job = self.login(pool).await?;
        let begun = clock::instant();
        let mut heard = begun;
        let mut keepalive = tokio::time::interval_at((heard + KEEPALIVE).into(), KEEPALIVE);
        loop {
            let answer_due = self.open.values().next().map(|open| open.at + ANSWER_TIMEOUT);
            let job_due = (!has_job).then_some(begun + ANSWER_TIMEOUT);
            let overdue = answer_due.into_iter().chain(job_due).fold(heard + SILENCE_MAX, Instant::min);
            tokio::select! {
                read = read_line(&mut self.read, &mut line) => {
                    read?;
                    heard = clock::instant();
                    let message = parse(&line)?;
                    line.clear();
                    has_job |= message.method.as_deref() == Some("job");
                    self.hear(message).await?;
                }
                share = shares.recv() => match share {
                    Some(share) => self.submit(&share).await?,
                    None => return Ok(()),
                },
                _ = keepalive.tick(), if self.keepalive => {
                    let (id, session) = (self.number(false), self.session.clone());
                    self.say(&wire::keepalive(id, &session)).await?;
                }
                () = tokio::time::sleep_until(overdue.into()) => {
                    return Err(if has_job { "the pool does not answer any more" } else { "the pool gives no work" }.into());
                },
            }
        }
    }

    async fn login(&mut self, pool: &PoolConfig) -> Result<bool, String> {
        let id = self.next;
        self.next += 1;
        self.say(&wire::login(id, pool)).await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(id)).await;
        let answer = answer.map_err(|_| "the pool does not answer the login".to_owned())??;
        if let Some(refusal) = answer.refusal() {
            return Err(format!("the pool refuses the login: {refusal}"));
        }
        let LoginAnswer { id, job, extensions } =
            serde_json::from_value(answer.result).map_err(|error| format!("the pool's login is malformed: {error}"))?;
        self.session = id;
        self.keepalive = extensions.iter().any(|extension| extension == "keepalive");
        let has_job = job.is_some();
        if let Some(job) = job {
            self.teller.tell(Said::Job(job)).await?;
        }
        Ok(has_job)
    }

    async fn answer(&mut self, id: u64) -> Result<Message, String> {
        let mut line = Vec::new();
        loop {
            read_line(&mut self.read, &mut line).await?;
            let message = parse(&line)?;
            line.clear();
            if message.method.is_none() && message.id == Some(id) {
                return Ok(message);
            }
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), String> {
        match message.method.as_deref() {
            Some("job") => {
                let job = serde_json::from_value(message.params)
                    .map_err(|error| format!("the pool's job is malformed: {error}"))?;
                self.teller.tell(Said::Job(job)).await
            }
            // News that this client does not know.
            Some(_) => Ok(()),
            None => {
                let Some(open) = message.id.and_then(|id| self.open.remove(&id)) else { return Ok(()) };
                if !open.share {
                    return Ok(());
                }
                self.teller.tell(Said::Share(message.refusal().map_or(Ok(()), Err))).await
            }
        }
    }

    async fn submit(&mut self, share: &Share) -> Result<(), String> {
        let (id, session) = (self.number(true), self.session.clone());
        self.say(&wire::submit(id, &session, &share.job_id, share.nonce, &share.hash)).await
    }

    fn number(&mut self, share: bool) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Open { at: clock::instant(), share });
        id
    }

    async fn say(&mut self, message: &Value) -> Result<(), String> {
        let line = format!("{message}\n");
        let written = tokio::time::timeout(ANSWER_TIMEOUT, async {
            self.write.write_all(line.as_bytes()).await?;
            self.write.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_) => Err("the pool does not read".into()),
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, String> {
    serde_json::from_slice(line).map_err(|error| format!("the pool talks nonsense: {error}"))
}

/// Reads a line, going on where a cancelled read left off.
///
/// # Errors
/// At the end of the connection, and when a line is too long.
pub async fn read_line<R>(read: &mut R, line: &mut Vec<u8>) -> Result<(), String>
where
    R: AsyncBufReadExt + Unpin,
{
    loop {
        let left = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
        let count = (&mut *read).take(left).read_until(b'\n', line).await;
        match count.map_err(|error| format!("the connection broke: {error}"))? {
            0 if left == 0 => return Err(format!("a message of more than {LINE_BYTES_MAX} bytes")),
            0 => return Err("the other side closed the connection".into()),
            _ if line.last() != Some(&b'\n') => {}
            // An empty line says nothing.
            _ if line.iter().all(u8::is_ascii_whitespace) => line.clear(),
            _ => return Ok(()),
        }
    }
}
