//! One stock miner: its login, its jobs, its shares.

use std::collections::BTreeMap;
use std::time::Duration;

use flota_common::clock;
use flota_proto::kinds::{Found, wins};
use flota_proto::mqtt::Register;
use flota_proto::{Algorithm, HexBytes, PROTOCOL, Timestamp, WorkerId, v1};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::House;
use super::share::{Claim, Given, Jobs, Pace};
use crate::handle::{Command, Heartbeat, Hello, Report, StreamId};
use crate::sources::monerod::block;
use crate::sources::offers::{GuestFind, Offer, divide};
use crate::sources::stratum::{read_line, wire};

const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// A miner that says nothing for so long is gone: it keeps alive every minute.
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Wrong hashes after which a guest is thrown out.
const WRONG_MAX: u32 = 3;

type Watch = watch::Receiver<BTreeMap<String, Offer>>;

/// A miner that has logged in.
pub struct Guest<'a> {
    house: &'a House,
    id: WorkerId,
    name: String,
    slice: u8,
    session: String,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    offers: Watch,
    jobs: Jobs,
    numbers: u64,
    pace: Pace,
    wrong: u32,
    stream: StreamId,
    master: mpsc::Receiver<v1::MasterMessage>,
    /// Whose guests it counts among.
    at: Option<Offer>,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.house.leave(&self.name, self.slice);
        if let Some(offer) = self.at.take() {
            offer.account.status.guests(-1);
        }
        let closed = Command::StreamClosed(self.stream);
        let handle = self.house.handle.clone();
        // The loop looks for ended streams by itself too.
        tokio::spawn(async move { handle.tell(closed).await });
    }
}

/// The part of a work's nonces that is for guests, if there is one.
fn for_guests(offer: &Offer) -> bool {
    divide(offer.work.nonces).1
}

impl<'a> Guest<'a> {
    /// Hears the login of a miner and makes it a worker of the fleet.
    ///
    /// # Errors
    /// Why it was turned away.
    pub async fn enter(stream: TcpStream, house: &'a House) -> Result<Self, String> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        let heard = tokio::time::timeout(LOGIN_TIMEOUT, read_line(&mut read, &mut line)).await;
        heard.map_err(|_| "it did not log in".to_owned())??;
        let request: Value = serde_json::from_slice(&line).map_err(|error| format!("it talks nonsense: {error}"))?;
        let (id, params) = (request["id"].clone(), &request["params"]);
        let offers = house.offers.watch();
        if let Err(refusal) = check(house, &request, &offers) {
            say(&mut write, &error(&id, &refusal)).await?;
            return Err(refusal);
        }
        let Some(slice) = house.slice() else {
            say(&mut write, &error(&id, "there are as many guests as there is room for")).await?;
            return Err("there is no room".into());
        };
        let word = |name: &str| params[name].as_str().filter(|text| !text.is_empty());
        let name = house.name(word("rigid").or(word("login")).unwrap_or("miner"));
        let joined = join(house, &name, word("agent").unwrap_or_default()).await;
        let (worker, stream, master) = joined.inspect_err(|_| house.leave(&name, slice))?;
        let mut guest = Self {
            house,
            id: worker,
            name,
            slice,
            session: Uuid::new_v4().simple().to_string(),
            read,
            write,
            offers,
            jobs: Jobs::default(),
            numbers: 0,
            pace: Pace::new(clock::instant()),
            wrong: 0,
            stream,
            master,
            at: None,
        };
        let job = guest.next_job().ok_or("there is no work any more")?;
        let result = json!({
            "id": guest.session, "job": job, "extensions": ["algo", "nicehash", "keepalive"], "status": "OK",
        });
        guest.say(&json!({ "id": id, "jsonrpc": "2.0", "error": null, "result": result })).await?;
        Ok(guest)
    }

    /// The worker that it is.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Gives it work and hears its shares until it goes; says why.
    pub async fn stay(&mut self) -> String {
        match self.talk().await {
            Ok(()) => "the fleet has no work for it".into(),
            Err(reason) => reason,
        }
    }

    async fn talk(&mut self) -> Result<(), String> {
        let mut line = Vec::new();
        let mut heard = clock::instant();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                read = read_line(&mut self.read, &mut line) => {
                    read?;
                    heard = clock::instant();
                    let request = serde_json::from_slice(&line).map_err(|error| format!("it talks nonsense: {error}"))?;
                    line.clear();
                    self.hear(&request).await?;
                }
                changed = self.offers.changed() => {
                    changed.map_err(|_| "the master is stopping".to_owned())?;
                    if !self.send_job().await? {
                        return Ok(());
                    }
                }
                _ = heartbeat.tick() => {
                    self.beat().await?;
                    self.retarget().await?;
                }
                message = self.master.recv() => match message.map(|message| message.goodbye) {
                    Some(None) => {}
                    Some(Some(goodbye)) => return Err(goodbye),
                    None => return Err("the master let it go".into()),
                },
                () = tokio::time::sleep_until((heard + SILENCE_MAX).into()) => return Err("it fell silent".into()),
            }
        }
    }

    /// The job of the first source that has some for guests; `None` when nothing is new.
    fn next_job(&mut self) -> Option<Value> {
        let offer = self.offers.borrow_and_update().values().find(|offer| for_guests(offer)).cloned()?;
        if self.at.as_ref().is_none_or(|at| at.account.id != offer.account.id) {
            offer.account.status.guests(1);
            if let Some(before) = self.at.replace(offer.clone()) {
                before.account.status.guests(-1);
            }
        }
        let difficulty = self.pace.difficulty(clock::instant(), offer.work.difficulty);
        self.numbers += 1;
        let mut blob = offer.work.blob.clone();
        if let Some(top) = blob.get_mut(offer.work.nonce_offset + block::NONCE_BYTES - 1) {
            *top = self.slice;
        }
        let job = wire::RawJob {
            blob: hex::encode(blob),
            job_id: self.numbers.to_string(),
            target: wire::target_of(difficulty),
            algo: Some(wire::ALGORITHM.into()),
            height: offer.work.height,
            seed_hash: Some(hex::encode(offer.work.key)),
            next_seed_hash: offer.work.next_key.map(hex::encode),
            id: Some(self.session.clone()),
        };
        self.jobs.push(Given { number: self.numbers, offer, difficulty, nonces: std::collections::BTreeSet::new() });
        serde_json::to_value(job).ok()
    }

    /// Sends the newest job where it is another; answers whether there is one at all.
    async fn send_job(&mut self) -> Result<bool, String> {
        let (there, job) = {
            let offers = self.offers.borrow();
            let offer = offers.values().find(|offer| for_guests(offer));
            (offer.is_some(), offer.map(|offer| offer.job))
        };
        if there && job != self.jobs.newest().map(|given| given.offer.job) {
            let Some(job) = self.next_job() else { return Ok(false) };
            self.say(&json!({ "jsonrpc": "2.0", "method": "job", "params": job })).await?;
        }
        Ok(there)
    }

    /// A job of another difficulty, where the guest is much faster or slower than thought.
    async fn retarget(&mut self) -> Result<(), String> {
        let Some(newest) = self.jobs.newest() else { return Ok(()) };
        let (had, most) = (newest.difficulty, newest.offer.work.difficulty);
        let wanted = self.pace.difficulty(clock::instant(), most);
        if (had / 2..=had.saturating_mul(2)).contains(&wanted) {
            return Ok(());
        }
        match self.next_job() {
            Some(job) => self.say(&json!({ "jsonrpc": "2.0", "method": "job", "params": job })).await,
            None => Ok(()),
        }
    }

    async fn hear(&mut self, request: &Value) -> Result<(), String> {
        let id = &request["id"];
        match request["method"].as_str() {
            Some("submit") => {
                let answer = match self.share(&request["params"]).await {
                    Ok(()) => json!({ "id": id, "jsonrpc": "2.0", "error": null, "result": { "status": "OK" } }),
                    Err(refusal) => error(id, &refusal),
                };
                self.say(&answer).await?;
                if self.wrong >= WRONG_MAX { Err(format!("{WRONG_MAX} of its hashes were wrong")) } else { Ok(()) }
            }
            Some("keepalived") => {
                self.say(&json!({ "id": id, "jsonrpc": "2.0", "error": null, "result": { "status": "KEEPALIVED" } }))
                    .await
            }
            _ => self.say(&error(id, "Unsupported method")).await,
        }
    }

    async fn share(&mut self, params: &Value) -> Result<(), String> {
        if params["id"].as_str().is_some_and(|id| id != self.session) {
            return Err("Unauthenticated".into());
        }
        let claim = claim(params).ok_or("Malformed share")?;
        let job = params["job_id"].as_str().unwrap_or_default();
        let given = self.jobs.admit(job, &claim, self.slice)?;
        let (offer, difficulty) = (given.offer.clone(), given.difficulty);
        let input = block::with_nonce(&offer.work.blob, offer.work.nonce_offset, claim.nonce);
        let hash = offer.account.verifier.hash(Algorithm::Randomx, &offer.work.key, &input).await;
        let hash = hash.map_err(|error| error.to_string())?;
        if hash != claim.hash {
            self.wrong += 1;
            offer.account.judged(super::super::status::Verdict::Invalid, "a guest's hash is wrong");
            return Err("Invalid hash".into());
        }
        self.pace.add(clock::instant(), difficulty);
        offer.account.status.hashed(difficulty);
        metrics::counter!("flota_hashes_total").increment(difficulty);
        metrics::counter!("flota_algorithm_hashes_total", "algorithm" => Algorithm::Randomx.as_str())
            .increment(difficulty);
        if wins(&hash, &offer.work.target) {
            let found = Found { nonce: u64::from(claim.nonce), hash: HexBytes(hash.to_vec()) };
            let find = GuestFind { job: offer.job, worker: self.id.clone(), found };
            if offer.finds.try_send(find).is_err() {
                return Err("Stale share".into());
            }
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), String> {
        let hashrate = self.pace.rate(clock::instant());
        let warm_keys = self.jobs.newest().map(|given| hex::encode(given.offer.work.key)).into_iter().collect();
        let heartbeat = Heartbeat { hashrate, warm_keys, ..Heartbeat::default() };
        let report = Report { heartbeat: Some(heartbeat), ..Report::default() };
        let told = self.house.handle.tell(Command::Report { stream: self.stream, report }).await;
        told.map_err(|refused| refused.to_string())
    }

    async fn say(&mut self, message: &Value) -> Result<(), String> {
        say(&mut self.write, message).await
    }
}

fn check(house: &House, request: &Value, offers: &Watch) -> Result<(), String> {
    let params = &request["params"];
    if request["method"] != "login" {
        return Err("log in first".into());
    }
    if params["login"].as_str().is_none_or(|login| login.trim().is_empty()) {
        return Err("log in with a name: give one as user".into());
    }
    if !house.admits(params["pass"].as_str().unwrap_or_default()) {
        return Err("wrong password: give the fleet's worker token as pass".into());
    }
    let knows = |list: &Vec<Value>| list.iter().any(|algorithm| algorithm == wire::ALGORITHM);
    if !params["algo"].as_array().is_none_or(knows) {
        return Err(format!("this fleet computes {} only", wire::ALGORITHM));
    }
    if !offers.borrow().values().any(for_guests) {
        return Err("there is no work for guests now: start a source with flota mine".into());
    }
    Ok(())
}

/// Makes the guest a worker that takes no units.
async fn join(
    house: &House,
    name: &str,
    agent: &str,
) -> Result<(WorkerId, StreamId, mpsc::Receiver<v1::MasterMessage>), String> {
    let worker: WorkerId = name.parse().map_err(|_| "its name is no name of a worker".to_owned())?;
    let boot_id = Uuid::now_v7().to_string();
    let agent: String = agent.chars().filter(|c| !c.is_control()).take(64).collect();
    let program = agent.split_whitespace().next().unwrap_or_default();
    let (language, version) = program.split_once('/').unwrap_or((program, ""));
    let register = Register {
        worker_id: worker.clone(),
        language: if language.is_empty() { "stratum".into() } else { language.to_owned() },
        status: "idle".into(),
        timestamp: Timestamp(clock::now().0),
        protocol: Some(PROTOCOL),
        boot_id: boot_id.clone(),
        version: version.to_owned(),
        slots: BTreeMap::new(),
        prefetch: BTreeMap::new(),
        kinds: Vec::new(),
        models: Vec::new(),
        capabilities: flota_proto::mqtt::Capabilities::default(),
        labels: BTreeMap::from([("kind".to_owned(), "guest".to_owned())]),
    };
    let refused = |refused: crate::handle::Refused| refused.to_string();
    house.handle.tell(Command::Registered(register)).await.map_err(refused)?;
    let (sender, master) = mpsc::channel(16);
    let hello = Hello { worker: worker.clone(), boot_id, running: Vec::new(), finished: Vec::new() };
    let (stream, _) = house.handle.stream_opened(hello, sender).await.map_err(refused)?;
    Ok((worker, stream, master))
}

fn claim(params: &Value) -> Option<Claim> {
    let nonce: [u8; 4] = hex::decode(params["nonce"].as_str()?).ok()?.try_into().ok()?;
    let hash = hex::decode(params["result"].as_str()?).ok()?.try_into().ok()?;
    Some(Claim { nonce: u32::from_le_bytes(nonce), hash })
}

fn error(id: &Value, message: &str) -> Value {
    json!({ "id": id, "jsonrpc": "2.0", "error": { "code": -1, "message": message } })
}

async fn say(write: &mut OwnedWriteHalf, message: &Value) -> Result<(), String> {
    let line = format!("{message}\n");
    match tokio::time::timeout(WRITE_TIMEOUT, write.write_all(line.as_bytes())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the connection broke: {error}")),
        Err(_) => Err("it does not read".into()),
    }
}
