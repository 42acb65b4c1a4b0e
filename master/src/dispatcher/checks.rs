//! Computes again what the core wants checked, outside the loop: on a thread of its own, which asks the verifier hash by hash, so that
//! results are checked side by side and none holds up the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flota_proto::kinds::{Find, HashPayload, HashResult, SearchPayload, SearchResult, wins};
use flota_proto::{Algorithm, HexBytes, Kind, UnitId};
use futures::future::join_all;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::Dispatcher;
use crate::core::{Check, Verdict, mix};
use crate::handle::{Command, Handle};
use crate::verifier::{Verifier, VerifyError};

/// Results of one key that are checked side by side.
const TOGETHER_MAX: usize = 64;
/// How long a verifier that can't work is given until it is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// How often.
const TRIES: u32 = 10;
const BUSY: Duration = Duration::from_millis(50);

/// A check with the payload of its unit.
struct Ready {
    check: Check,
    /// Or why there is none.
    payload: Result<Bytes, String>,
}

/// The way to the checking thread.
pub(super) struct Checker {
    // The core has a few of each worker checked at the same time.
    checks: mpsc::UnboundedSender<Ready>,
}

impl Checker {
    /// Starts its thread, which ends with this.
    pub(super) fn start(verifier: Arc<Verifier>, handle: &Handle) -> std::io::Result<Self> {
        let (checks, asked) = mpsc::unbounded_channel();
        let commands = handle.downgrade();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let run = move || runtime.block_on(serve(asked, &verifier, &commands));
        std::thread::Builder::new().name("flota-checks".into()).spawn(run)?;
        Ok(Self { checks })
    }
}

/// Results with one key at a time: the verifier keeps few caches, and making one takes as long as some dozens of hashes.
async fn serve(mut asked: mpsc::UnboundedReceiver<Ready>, verifier: &Verifier, commands: &mpsc::WeakSender<Command>) {
    let mut waiting: Vec<Plan> = Vec::new();
    loop {
        if waiting.is_empty() {
            match asked.recv().await {
                Some(ready) => waiting.push(planned(&ready)),
                None => return,
            }
        }
        while let Ok(ready) = asked.try_recv() {
            waiting.push(planned(&ready));
        }
        let Some(hasher) = waiting.first().map(|plan| plan.hasher.clone()) else { continue };
        let mut room = TOGETHER_MAX;
        let now: Vec<Plan> = waiting
            .extract_if(.., |other| {
                let taken = other.hasher == hasher && room > 0;
                room -= usize::from(taken);
                taken
            })
            .collect();
        join_all(now.into_iter().map(|plan| answer(plan, verifier, commands))).await;
    }
}

async fn answer(plan: Plan, verifier: &Verifier, commands: &mpsc::WeakSender<Command>) {
    let (unit, attempt) = (plan.unit, plan.attempt);
    let verdict = plan.carry_out(verifier).await;
    let outcome = match &verdict {
        Verdict::Right(_) => "right",
        Verdict::Wrong(_) => "wrong",
        Verdict::Unable(_) => "unable",
    };
    metrics::counter!("flota_checks_total", "outcome" => outcome).increment(1);
    if let Some(commands) = commands.upgrade() {
        let _ = commands.send(Command::Checked { unit, attempt, verdict }).await;
    }
}

/// What hashes are computed with.
#[derive(Clone, PartialEq, Eq)]
struct Hasher {
    algorithm: Algorithm,
    /// Empty where the algorithm has none.
    key: Vec<u8>,
}

impl Hasher {
    fn of(algorithm: Algorithm, key: Option<&HexBytes>) -> Self {
        Self { algorithm, key: key.map(|key| key.to_vec()).unwrap_or_default() }
    }

    async fn hash(&self, input: &[u8], verifier: &Verifier) -> Result<[u8; 32], String> {
        let mut tries = 0;
        loop {
            match verifier.hash(self.algorithm, &self.key, input).await {
                Ok(hash) => return Ok(hash),
                Err(VerifyError::Busy) => tokio::time::sleep(BUSY).await,
                Err(VerifyError::Broken(why)) if tries >= TRIES => return Err(why),
                Err(VerifyError::Broken(why)) => {
                    warn!("a result can't be checked yet: {why}; each RandomX key takes 256 MiB");
                    tries += 1;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// What is to be computed again of one result, or what is known without that.
struct Plan {
    unit: UnitId,
    attempt: u64,
    hasher: Hasher,
    points: Result<Vec<Point>, Verdict>,
}

type Points = (Hasher, Result<Vec<Point>, Verdict>);

fn planned(ready: &Ready) -> Plan {
    let Ready { check, payload } = ready;
    let Check { unit, attempt, kind, .. } = *check;
    let points = match (kind, payload) {
        (_, Err(why)) => Some((no_hasher(), Err(Verdict::Unable(why.clone())))),
        (Kind::Hash(algorithm), Ok(payload)) => hash_points(algorithm, check, payload),
        (Kind::Search(algorithm), Ok(payload)) => search_points(algorithm, check, payload),
        (Kind::AiChat | Kind::AiEmbed | Kind::Echo, Ok(_)) => None,
    };
    // What can't be read has nothing to be checked: it is refused when it is to count.
    let (hasher, points) = points.unwrap_or_else(|| (no_hasher(), Ok(Vec::new())));
    Plan { unit, attempt, hasher, points }
}

fn no_hasher() -> Hasher {
    Hasher::of(Algorithm::Sha256d, None)
}

/// What is computed again at once.
enum Point {
    /// One hash of which all is known.
    Hash { what: String, input: Vec<u8>, said: Vec<u8> },
    /// A nonce that is said to win.
    Win { search: Arc<SearchPayload>, nonce: u64, said: Vec<u8> },
    /// A group of nonces of a proof.
    Group(Group),
}

/// A group of nonces, and what the worker's result says of them.
struct Group {
    search: Arc<SearchPayload>,
    nonces: [u64; 2],
    /// Those of them that were reported; `None` where that need not be all that win.
    wins: Option<BTreeSet<u64>>,
    /// The highest bytes of their hashes, combined.
    top: Option<[u8; 2]>,
}

impl Plan {
    async fn carry_out(self, verifier: &Verifier) -> Verdict {
        let points = match self.points {
            Ok(points) => points,
            Err(verdict) => return verdict,
        };
        let mut right = 0;
        for point in points {
            match point.compare(&self.hasher, verifier).await {
                Ok(None) => right += 1,
                Ok(Some(wrong)) => return Verdict::Wrong(wrong),
                Err(why) => return Verdict::Unable(why),
            }
        }
        Verdict::Right(right)
    }
}

impl Point {
    /// What is wrong with it.
    async fn compare(&self, hasher: &Hasher, verifier: &Verifier) -> Result<Option<String>, String> {
        let other = |what: &str| format!("{what} has another hash");
        Ok(match self {
            Self::Hash { what, input, said } => {
                let hash = hasher.hash(input, verifier).await?;
                (**said != hash).then(|| other(what))
            }
            Self::Win { search, nonce, said } => {
                let hash = hasher.hash(&search.input(*nonce), verifier).await?;
                let right = **said == hash && wins(&hash, &search.target);
                (!right).then(|| other(&format!("found nonce {nonce}")))
            }
            Self::Group(group) => {
                let mut top = [0; 2];
                for nonce in group.nonces[0]..group.nonces[1] {
                    let hash = hasher.hash(&group.search.input(nonce), verifier).await?;
                    if group.hides(nonce, &hash) {
                        return Ok(Some(format!("nonce {nonce} wins and was not reported")));
                    }
                    (top[0], top[1]) = (top[0] ^ hash[31], top[1] ^ hash[30]);
                }
                group.top.is_some_and(|said| said != top).then(|| other(&group.name()))
            }
        })
    }
}

impl Group {
    fn hides(&self, nonce: u64, hash: &[u8]) -> bool {
        let unreported = self.wins.as_ref().is_some_and(|reported| !reported.contains(&nonce));
        unreported && wins(hash, &self.search.target)
    }

    /// For people.
    fn name(&self) -> String {
        match self.nonces {
            [from, to] if to - from == 1 => format!("nonce {from}"),
            [from, to] => format!("one of the nonces {from} to {}", to - 1),
        }
    }
}

/// Up to `count` different numbers below `bound`, from the entropy.
fn chosen(entropy: u64, count: u32, bound: u64) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    if u64::from(count) >= bound {
        return (0..bound).collect();
    }
    let mut state = entropy;
    while (chosen.len() as u64) < u64::from(count) {
        state = mix(state);
        chosen.insert(state % bound);
    }
    chosen
}

fn hash_points(algorithm: Algorithm, check: &Check, payload: &[u8]) -> Option<Points> {
    let payload: HashPayload = serde_json::from_slice(payload).ok()?;
    let result: HashResult = serde_json::from_slice(&check.output).ok()?;
    let count = payload.inputs.len().min(result.hashes.len()) as u64;
    let point = |index: u64| {
        let at = usize::try_from(index).ok()?;
        let (input, said) = (payload.inputs.get(at)?.to_vec(), result.hashes.get(at)?.to_vec());
        Some(Point::Hash { what: format!("input {}", check.part.0 + index), input, said })
    };
    let points = chosen(check.entropy, check.samples, count).into_iter().filter_map(point).collect();
    Some((Hasher::of(algorithm, payload.key.as_ref()), Ok(points)))
}

fn search_points(algorithm: Algorithm, check: &Check, payload: &[u8]) -> Option<Points> {
    let search: Arc<SearchPayload> = Arc::new(serde_json::from_slice(payload).ok()?);
    let result: SearchResult = serde_json::from_slice(&check.output).ok()?;
    let hasher = Hasher::of(algorithm, search.key.as_ref());
    let found: BTreeSet<u64> = result.found.iter().map(|found| found.nonce).collect();
    // Of a search for the first not every find is reported.
    let all_finds = search.find == Find::All || found.is_empty();
    if all_finds && let Some(nonce) = hidden_win(algorithm, &search, &result, &found) {
        let why = format!("its proof says that nonce {nonce} wins, and it was not reported");
        return Some((hasher, Err(Verdict::Wrong(why))));
    }
    let wins = result.found.iter().map(|found| Point::Win {
        search: search.clone(),
        nonce: found.nonce,
        said: found.hash.to_vec(),
    });
    let groups = chosen(check.entropy, check.samples, result.groups_count(algorithm)).into_iter().filter_map(|index| {
        let nonces = result.group(algorithm, index)?;
        let single = nonces[1] - nonces[0] == 1;
        // It is computed again as a find.
        if single && found.contains(&nonces[0]) {
            return None;
        }
        let wins = all_finds.then(|| found.range(nonces[0]..nonces[1]).copied().collect());
        Some(Point::Group(Group { search: search.clone(), nonces, wins, top: top(&result.proof, index) }))
    });
    let points = wins.chain(groups).collect();
    Some((hasher, Ok(points)))
}

fn top(proof: &[u8], index: u64) -> Option<[u8; 2]> {
    let at = usize::try_from(index).ok()?.checked_mul(2)?;
    Some([*proof.get(at)?, *proof.get(at + 1)?])
}

/// A win that the proof shows and that was not reported: where a group is one nonce, that needs no hash to be seen.
fn hidden_win(
    algorithm: Algorithm,
    search: &SearchPayload,
    result: &SearchResult,
    found: &BTreeSet<u64>,
) -> Option<u64> {
    if algorithm.proof_step() != 1 {
        return None;
    }
    let limit = search.target.get(30..32).map(|high| [high[1], high[0]])?;
    let hidden = |([nonce, _], top): ([u64; 2], &[u8])| {
        let wins = matches!(*top, [high, low] if [high, low] < limit);
        (wins && !found.contains(&nonce)).then_some(nonce)
    };
    result.groups(algorithm).zip(result.proof.chunks(2)).find_map(hidden)
}

impl Dispatcher {
    /// Has a result checked.
    pub(super) fn check(&mut self, check: Check) {
        let payload = self.unit_payload(check.seq, check.kind, Some(check.part), check.payload.clone());
        let payload = payload.map_err(|refused| {
            let why = refused.to_string();
            self.not_published(check.unit.job, refused);
            why
        });
        let ready = Ready { check, payload };
        if self.checker.as_ref().is_none_or(|checker| checker.checks.send(ready).is_err()) {
            error!("a result can't be checked: the checking thread has ended; restart the master");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flota_proto::JobId;
    use flota_proto::kinds::Found;
    use sha2::{Digest, Sha256};

    /// The highest byte is below 16.
    const TARGET: &str = "0000000000000000000000000000000000000000000000000000000000000010";

    fn search(algorithm: Algorithm, nonces: [u64; 2], find: Find) -> SearchPayload {
        SearchPayload {
            key: algorithm.has_key().then(|| b"k".to_vec().into()),
            blob: vec![0; 8].into(),
            nonce_offset: 2,
            nonce_start: nonces[0],
            nonce_end: nonces[1],
            target: hex::decode(TARGET).unwrap().into(),
            find,
        }
    }

    fn check(kind: Kind, output: Vec<u8>, samples: u32) -> Check {
        Check {
            worker: "w".parse().unwrap(),
            seq: 1,
            unit: UnitId { job: JobId::generate(), index: 0 },
            attempt: 1,
            kind,
            part: (10, 14),
            payload: None,
            output: output.into(),
            samples,
            entropy: 7,
        }
    }

    fn plan(payload: &SearchPayload, algorithm: Algorithm, result: &SearchResult, samples: u32) -> Plan {
        let check = check(Kind::Search(algorithm), serde_json::to_vec(result).unwrap(), samples);
        planned(&Ready { check, payload: Ok(serde_json::to_vec(payload).unwrap().into()) })
    }

    fn points(find: Find, found: &[u64], proof: &[u8], samples: u32) -> Result<Vec<Point>, Verdict> {
        let found = found.iter().map(|nonce| Found { nonce: *nonce, hash: vec![1; 32].into() }).collect();
        let result = SearchResult { found, hashes_computed: 4, covered: vec![[10, 14]], proof: proof.to_vec().into() };
        plan(&search(Algorithm::Randomx, [10, 14], find), Algorithm::Randomx, &result, samples).points
    }

    #[test]
    fn every_find_is_computed_again_and_of_the_others_as_many_as_asked() {
        let proof = [0x20, 0, 0x0f, 1, 0x80, 0, 0xff, 0xff];
        let all = points(Find::All, &[11], &proof, 16).unwrap();
        assert_eq!(all.len(), 4, "the find and three that lose");
        assert!(matches!(&all[0], Point::Win { nonce: 11, .. }));
        assert_eq!(points(Find::All, &[11], &proof, 0).unwrap().len(), 1);
    }

    #[test]
    fn a_win_that_the_proof_shows_and_nobody_reported_needs_no_hash() {
        let proof = [0x20, 0, 0x0f, 1, 0x80, 0, 0xff, 0xff];
        assert!(matches!(points(Find::All, &[], &proof, 0), Err(Verdict::Wrong(why)) if why.contains("nonce 11")));
        assert!(points(Find::First, &[12], &proof, 0).is_ok(), "another may have been found at the same time");
    }

    /// What an honest worker sends.
    fn honest(search: &SearchPayload) -> SearchResult {
        let hash = |nonce: u64| -> [u8; 32] { Sha256::digest(Sha256::digest(search.input(nonce))).into() };
        let covered = vec![[search.nonce_start, search.nonce_end]];
        let won = (search.nonce_start..search.nonce_end).map(|nonce| (nonce, hash(nonce)));
        let found =
            won.filter(|(_, hash)| hash[31] < 16).map(|(nonce, hash)| Found { nonce, hash: hash.to_vec().into() });
        let result = SearchResult {
            found: found.collect(),
            hashes_computed: search.count(),
            covered,
            proof: HexBytes::default(),
        };
        let top = |[from, to]: [u64; 2]| {
            (from..to).map(hash).fold([0; 2], |top: [u8; 2], hash| [top[0] ^ hash[31], top[1] ^ hash[30]])
        };
        let proof: Vec<u8> = result.groups(Algorithm::Sha256d).flat_map(top).collect();
        SearchResult { proof: proof.into(), ..result }
    }

    async fn verdict(search: &SearchPayload, change: impl FnOnce(&mut SearchResult)) -> Verdict {
        let mut result = honest(search);
        change(&mut result);
        plan(search, Algorithm::Sha256d, &result, 16).carry_out(&Verifier::start().unwrap()).await
    }

    fn wrong(verdict: &Verdict, what: &str) {
        assert!(matches!(verdict, Verdict::Wrong(why) if why.contains(what)), "{verdict:?}");
    }

    #[tokio::test]
    async fn a_group_of_nonces_is_compared_with_all_that_was_said_of_it() {
        // Two groups, the second of three nonces.
        let all = search(Algorithm::Sha256d, [100, 100 + 4096 + 3], Find::All);
        let found = honest(&all).found;
        assert!((200..320).contains(&found.len()), "about one in sixteen wins: {}", found.len());
        let right = Verdict::Right(found.len() as u32 + 2);
        assert_eq!(verdict(&all, |_| {}).await, right);
        assert_eq!(verdict(&all, |result| result.proof = HexBytes::default()).await, right, "held to the rest without");
        for byte in 0..4 {
            wrong(&verdict(&all, |result| result.proof.0[byte] ^= 1).await, "has another hash");
        }
        let hidden = found[0].nonce;
        let hide = |result: &mut SearchResult| drop(result.found.remove(0));
        wrong(&verdict(&all, hide).await, &format!("nonce {hidden} wins and was not reported"));
        wrong(&verdict(&all, |result| result.found[0].nonce += 1).await, "has another hash");
        let easy = |result: &mut SearchResult| {
            let nonce = (100..).find(|nonce| result.found.iter().all(|found| found.nonce != *nonce)).unwrap();
            let hash: [u8; 32] = Sha256::digest(Sha256::digest(all.input(nonce))).into();
            result.found.push(Found { nonce, hash: hash.to_vec().into() });
        };
        wrong(&verdict(&all, easy).await, "found nonce");
    }

    #[tokio::test]
    async fn of_a_search_for_the_first_not_every_win_has_to_be_reported() {
        let first = search(Algorithm::Sha256d, [100, 100 + 4096], Find::First);
        assert_eq!(verdict(&first, |result| result.found.truncate(1)).await, Verdict::Right(2));
        wrong(&verdict(&first, |result| result.found.clear()).await, "wins and was not reported");
    }

    #[tokio::test]
    async fn hashes_are_compared_with_those_computed_here() {
        let payload = HashPayload { key: None, inputs: vec![b"a".to_vec().into(), HexBytes::default()] };
        let hashes = |inputs: &[&[u8]]| -> Vec<HexBytes> {
            inputs.iter().map(|input| Sha256::digest(Sha256::digest(input)).to_vec().into()).collect()
        };
        let verdict = async |hashes: Vec<HexBytes>| {
            let result = HashResult { hashes, mode: String::new(), covered: Vec::new() };
            let check = check(Kind::Hash(Algorithm::Sha256d), serde_json::to_vec(&result).unwrap(), 4);
            let ready = Ready { check, payload: Ok(serde_json::to_vec(&payload).unwrap().into()) };
            planned(&ready).carry_out(&Verifier::start().unwrap()).await
        };
        assert_eq!(verdict(hashes(&[b"a", b""])).await, Verdict::Right(2));
        wrong(&verdict(hashes(&[b"a", b"b"])).await, "input 11 has another hash");
    }

    #[test]
    fn samples_are_different_and_depend_on_the_entropy() {
        let (one, two) = (chosen(1, 4, 1_000), chosen(2, 4, 1_000));
        assert_eq!((one.len(), two.len()), (4, 4));
        assert_ne!(one, two);
        assert_eq!(chosen(3, 16, 5), (0..5).collect());
        assert!(chosen(3, 16, 0).is_empty());
    }
}
