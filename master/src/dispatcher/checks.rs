//! Computes again what the core wants checked, outside the loop: on a thread of its own, which asks the verifier hash by hash, so that
//! results are checked side by side and none holds up the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flota_proto::kinds::{Find, HashPayload, HashResult, SearchPayload, SearchResult};
use flota_proto::{Kind, UnitId};
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
    let mut waiting: Vec<(Vec<u8>, Plan)> = Vec::new();
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
        let Some(key) = waiting.first().map(|(key, _)| key.clone()) else { continue };
        let mut room = TOGETHER_MAX;
        let now: Vec<Plan> = waiting
            .extract_if(.., |(other, _)| {
                let taken = *other == key && room > 0;
                room -= usize::from(taken);
                taken
            })
            .map(|(_, plan)| plan)
            .collect();
        join_all(now.into_iter().map(|plan| answer(plan, &key, verifier, commands))).await;
    }
}

async fn answer(plan: Plan, key: &[u8], verifier: &Verifier, commands: &mpsc::WeakSender<Command>) {
    let (unit, attempt) = (plan.unit, plan.attempt);
    let verdict = plan.carry_out(key, verifier).await;
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

fn planned(ready: &Ready) -> (Vec<u8>, Plan) {
    let Ready { check, payload } = ready;
    let Check { unit, attempt, kind, .. } = *check;
    let points = match (kind, payload) {
        (_, Err(why)) => Some((Vec::new(), Err(Verdict::Unable(why.clone())))),
        (Kind::RandomxHash, Ok(payload)) => hash_points(check, payload),
        (Kind::RandomxSearch, Ok(payload)) => search_points(check, payload),
        (Kind::AiChat | Kind::AiEmbed | Kind::Echo, Ok(_)) => None,
    };
    // What can't be read has nothing to be checked: it is refused when it is to count.
    let (key, points) = points.unwrap_or_else(|| (Vec::new(), Ok(Vec::new())));
    (key, Plan { unit, attempt, points })
}

/// What is to be computed again of one result, or what is known without that.
struct Plan {
    unit: UnitId,
    attempt: u64,
    points: Result<Vec<Point>, Verdict>,
}

/// One hash to be computed again.
struct Point {
    input: Vec<u8>,
    /// For people.
    what: String,
    expected: Expected,
}

/// What the worker's result says of a hash.
enum Expected {
    /// It is this.
    Hash(Vec<u8>),
    /// It is this, and lies below the target.
    Win(Vec<u8>, Vec<u8>),
    /// It does not lie below the target; these are its highest bytes.
    Loss(Vec<u8>, Option<[u8; 2]>),
}

impl Plan {
    async fn carry_out(self, key: &[u8], verifier: &Verifier) -> Verdict {
        let points = match self.points {
            Ok(points) => points,
            Err(verdict) => return verdict,
        };
        let mut right = 0;
        for point in points {
            let hash = match compute(key, &point.input, verifier).await {
                Ok(hash) => hash,
                Err(why) => return Verdict::Unable(why),
            };
            if let Err(why) = point.expected.compare(&hash) {
                return Verdict::Wrong(format!("{} {why}", point.what));
            }
            right += 1;
        }
        Verdict::Right(right)
    }
}

async fn compute(key: &[u8], input: &[u8], verifier: &Verifier) -> Result<[u8; 32], String> {
    let mut tries = 0;
    loop {
        match verifier.hash(key, input).await {
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

impl Expected {
    fn compare(&self, hash: &[u8; 32]) -> Result<(), &'static str> {
        let fits = match self {
            Self::Hash(said) => **said == *hash,
            Self::Win(said, target) => **said == *hash && is_below(hash, target),
            Self::Loss(target, _) if is_below(hash, target) => return Err("wins and was not reported"),
            Self::Loss(_, said) => said.is_none_or(|said| said == [hash[31], hash[30]]),
        };
        if fits { Ok(()) } else { Err("has another hash") }
    }
}

fn is_below(hash: &[u8], target: &[u8]) -> bool {
    hash.iter().rev().lt(target.iter().rev())
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

type Points = (Vec<u8>, Result<Vec<Point>, Verdict>);

fn hash_points(check: &Check, payload: &[u8]) -> Option<Points> {
    let payload: HashPayload = serde_json::from_slice(payload).ok()?;
    let result: HashResult = serde_json::from_slice(&check.output).ok()?;
    let count = payload.inputs.len().min(result.hashes.len()) as u64;
    let point = |index: u64| {
        let at = usize::try_from(index).ok()?;
        let input = payload.inputs.get(at)?.to_vec();
        let what = format!("input {}", check.part.0 + index);
        Some(Point { input, what, expected: Expected::Hash(result.hashes.get(at)?.to_vec()) })
    };
    let points = chosen(check.entropy, check.samples, count).into_iter().filter_map(point).collect();
    Some((payload.key.to_vec(), Ok(points)))
}

fn search_points(check: &Check, payload: &[u8]) -> Option<Points> {
    let payload: SearchPayload = serde_json::from_slice(payload).ok()?;
    let result: SearchResult = serde_json::from_slice(&check.output).ok()?;
    let key = payload.key.to_vec();
    let claims = Claims::of(&payload, &result);
    if let Err(why) = claims.agree() {
        return Some((key, Err(Verdict::Wrong(why))));
    }
    let wins = result.found.iter().map(|found| {
        let expected = Expected::Win(found.hash.to_vec(), payload.target.to_vec());
        Point { input: input(&payload, found.nonce), what: format!("found nonce {}", found.nonce), expected }
    });
    let losses = chosen(check.entropy, check.samples, claims.count()).into_iter().filter_map(|index| {
        let nonce = claims.nonce(index)?;
        if claims.found.contains(&nonce) {
            return None;
        }
        // Of a search for the first not every find is reported.
        let target = if claims.some_finds { vec![0; 32] } else { payload.target.to_vec() };
        let expected = Expected::Loss(target, claims.top(index));
        Some(Point { input: input(&payload, nonce), what: format!("nonce {nonce}"), expected })
    });
    let points = wins.chain(losses).collect();
    Some((key, Ok(points)))
}

/// The blob with a nonce in it.
fn input(payload: &SearchPayload, nonce: u64) -> Vec<u8> {
    let mut blob = payload.blob.to_vec();
    let place = blob.iter_mut().skip(usize::try_from(payload.nonce_offset).unwrap_or(usize::MAX));
    place.zip((nonce as u32).to_le_bytes()).for_each(|(byte, digit)| *byte = digit);
    blob
}

/// What a search result says of each nonce.
struct Claims<'a> {
    covered: &'a [[u64; 2]],
    proof: &'a [u8],
    found: BTreeSet<u64>,
    target: &'a [u8],
    /// Where the first find ended the search, others may have been left out.
    some_finds: bool,
}

impl<'a> Claims<'a> {
    fn of(payload: &'a SearchPayload, result: &'a SearchResult) -> Self {
        let found: BTreeSet<u64> = result.found.iter().map(|found| found.nonce).collect();
        let some_finds = payload.find == Find::First && !found.is_empty();
        Self { covered: &result.covered, proof: &result.proof, found, target: &payload.target, some_finds }
    }

    fn count(&self) -> u64 {
        self.covered.iter().map(|[from, to]| to.saturating_sub(*from)).sum()
    }

    /// The nonce at this place in all that is covered.
    fn nonce(&self, mut index: u64) -> Option<u64> {
        for [from, to] in self.covered {
            let length = to.saturating_sub(*from);
            if index < length {
                return Some(from + index);
            }
            index -= length;
        }
        None
    }

    fn top(&self, index: u64) -> Option<[u8; 2]> {
        let at = usize::try_from(index).ok()? * 2;
        Some([*self.proof.get(at)?, *self.proof.get(at + 1)?])
    }

    /// What needs no hash to be seen: the proof has no win that was not reported.
    fn agree(&self) -> Result<(), String> {
        let Some(limit) = self.target.get(30..32).map(|high| [high[1], high[0]]) else { return Ok(()) };
        if self.some_finds {
            return Ok(());
        }
        let silent = |(index, top): (usize, &[u8])| {
            let nonce = self.nonce(index as u64)?;
            let wins = matches!(*top, [high, low] if [high, low] < limit);
            (wins && !self.found.contains(&nonce)).then_some(nonce)
        };
        match self.proof.chunks(2).enumerate().find_map(silent) {
            Some(nonce) => Err(format!("its proof says that nonce {nonce} wins, and it was not reported")),
            None => Ok(()),
        }
    }
}

impl Dispatcher {
    /// Has a result checked.
    pub(super) fn check(&mut self, check: Check) {
        let payload = self.unit_payload(check.seq, check.kind, Some(check.part), check.payload.clone());
        let ready = Ready { check, payload: payload.map_err(|refused| refused.to_string()) };
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

    const TARGET: &str = "0000000000000000000000000000000000000000000000000000000000000010";

    fn payload(find: Find) -> SearchPayload {
        SearchPayload {
            key: b"k".to_vec().into(),
            blob: vec![0; 8].into(),
            nonce_offset: 2,
            nonce_start: 10,
            nonce_end: 14,
            target: hex::decode(TARGET).unwrap().into(),
            find,
        }
    }

    fn points(find: Find, found: &[u64], proof: &[u8], samples: u32) -> Result<Vec<Point>, Verdict> {
        let found = found.iter().map(|nonce| Found { nonce: *nonce, hash: vec![1; 32].into() }).collect();
        let result = SearchResult { found, hashes_computed: 4, covered: vec![[10, 14]], proof: proof.to_vec().into() };
        let check = Check {
            worker: "w".parse().unwrap(),
            seq: 1,
            unit: UnitId { job: JobId::generate(), index: 0 },
            attempt: 1,
            kind: Kind::RandomxSearch,
            part: (10, 14),
            payload: None,
            output: serde_json::to_vec(&result).unwrap().into(),
            samples,
            entropy: 7,
        };
        search_points(&check, &serde_json::to_vec(&payload(find)).unwrap()).unwrap().1
    }

    #[test]
    fn every_find_is_computed_again_and_of_the_others_as_many_as_asked() {
        let proof = [0x20, 0, 0x0f, 1, 0x80, 0, 0xff, 0xff];
        let all = points(Find::All, &[11], &proof, 16).unwrap();
        assert_eq!(all.len(), 4, "the find and three that lose");
        assert!(matches!(&all[0].expected, Expected::Win(..)) && all[0].input == [0, 0, 11, 0, 0, 0, 0, 0]);
        assert_eq!(points(Find::All, &[11], &proof, 0).unwrap().len(), 1);
    }

    #[test]
    fn a_win_that_the_proof_shows_and_nobody_reported_needs_no_hash() {
        let proof = [0x20, 0, 0x0f, 1, 0x80, 0, 0xff, 0xff];
        assert!(matches!(points(Find::All, &[], &proof, 0), Err(Verdict::Wrong(why)) if why.contains("nonce 11")));
        assert!(points(Find::First, &[12], &proof, 0).is_ok(), "another may have been found at the same time");
    }

    #[test]
    fn a_hash_is_compared_with_all_that_was_said_of_it() {
        let mut hash = [9; 32];
        (hash[30], hash[31]) = (2, 1);
        let target = |high: u8| [[0; 31].as_slice(), &[high]].concat();
        assert!(Expected::Hash(hash.to_vec()).compare(&hash).is_ok());
        assert!(Expected::Hash(vec![9; 32]).compare(&hash).is_err());
        assert!(Expected::Win(hash.to_vec(), target(2)).compare(&hash).is_ok());
        assert!(Expected::Win(hash.to_vec(), target(1)).compare(&hash).is_err(), "right, and no win");
        assert!(Expected::Loss(target(1), Some([1, 2])).compare(&hash).is_ok());
        assert!(Expected::Loss(target(1), None).compare(&hash).is_ok());
        assert!(Expected::Loss(target(1), Some([1, 3])).compare(&hash).is_err());
        assert!(Expected::Loss(target(2), Some([1, 2])).compare(&hash).is_err(), "it wins");
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
