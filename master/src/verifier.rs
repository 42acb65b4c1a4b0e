//! Every algorithm on the master: nobody's word is taken for a hash. RandomX is computed in light mode by one thread, in turn, so that
//! verification never takes more than one core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use flota_common::clock;
use flota_proto::Algorithm;
use flota_randomx::{Cache, HASH_BYTES, Vm, thread};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::oneshot;

/// Questions that may wait.
const WAITING_MAX: usize = 4096;
/// Keys kept at once: the one before and the one after a change.
const KEYS_MAX: usize = 2;
/// A key that nobody asked for so long gives its 256 MiB back.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// Why there is no hash.
#[derive(Clone, Debug, Error)]
pub enum VerifyError {
    /// Too much is asked at once.
    #[error("the master's verifier has {WAITING_MAX} hashes to compute already")]
    Busy,
    /// No memory, or no thread.
    #[error("the master's verifier can't work: {0}")]
    Broken(String),
}

struct Question {
    key: Vec<u8>,
    input: Vec<u8>,
    answer: oneshot::Sender<Result<[u8; HASH_BYTES], VerifyError>>,
}

/// Computes hashes; cheap to clone. Takes no memory before the first.
#[derive(Clone)]
pub struct Verifier {
    questions: Sender<Question>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("waiting", &self.questions.len()).finish()
    }
}

impl Verifier {
    /// Starts its thread, which ends when the last clone is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start() -> std::io::Result<Self> {
        let (questions, asked) = bounded(WAITING_MAX);
        std::thread::Builder::new().name("flota-verifier".into()).spawn(move || serve(&asked))?;
        Ok(Self { questions })
    }

    /// The hash of `input` with `key`, where the algorithm has one.
    ///
    /// # Errors
    /// [`VerifyError`]
    pub async fn hash(&self, algorithm: Algorithm, key: &[u8], input: &[u8]) -> Result<[u8; HASH_BYTES], VerifyError> {
        match algorithm {
            Algorithm::Randomx => self.randomx(key, input).await,
            // Sooner done than handed to another thread.
            Algorithm::Sha256d => Ok(Sha256::digest(Sha256::digest(input)).into()),
        }
    }

    /// About 30 ms, and 1 s more for a new key.
    async fn randomx(&self, key: &[u8], input: &[u8]) -> Result<[u8; HASH_BYTES], VerifyError> {
        let (answer, answered) = oneshot::channel();
        let gone = || VerifyError::Broken("its thread has ended".into());
        self.questions.try_send(Question { key: key.to_vec(), input: input.to_vec(), answer }).map_err(|error| {
            match error {
                TrySendError::Full(_) => VerifyError::Busy,
                TrySendError::Disconnected(_) => gone(),
            }
        })?;
        answered.await.map_err(|_| gone())?
    }
}

/// What one key needs.
struct Warm {
    key: Vec<u8>,
    used: Instant,
    vm: Vm,
}

fn serve(asked: &Receiver<Question>) {
    let mut warm: Vec<Warm> = Vec::new();
    loop {
        let question = match asked.recv_timeout(IDLE) {
            Ok(question) => question,
            Err(RecvTimeoutError::Timeout) => {
                warm.retain(|warm| warm.used.elapsed() < IDLE);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Nobody waits any more: the hash is not worth computing.
        if question.answer.is_closed() {
            continue;
        }
        let (begun, worked) = (clock::instant(), thread::cpu_time());
        let hash = hash(&mut warm, &question);
        metrics::counter!("flota_verified_total").increment(1);
        metrics::histogram!("flota_verify_seconds").record(begun.elapsed().as_secs_f64());
        let worked = thread::cpu_time().saturating_sub(worked);
        metrics::histogram!("flota_verify_cpu_seconds").record(worked.as_secs_f64());
        let _ = question.answer.send(hash);
    }
}

fn hash(warm: &mut Vec<Warm>, question: &Question) -> Result<[u8; HASH_BYTES], VerifyError> {
    let used = clock::instant();
    if let Some(found) = warm.iter_mut().find(|warm| warm.key == question.key) {
        found.used = used;
        return Ok(found.vm.hash(&question.input));
    }
    if warm.len() >= KEYS_MAX
        && let Some(oldest) = (0..warm.len()).min_by_key(|index| warm[*index].used)
    {
        // Before the new one is made: there may be no memory for three.
        warm.swap_remove(oldest);
    }
    let broken = |error: flota_randomx::Error| VerifyError::Broken(error.to_string());
    let cache = Arc::new(Cache::new(&question.key).map_err(broken)?);
    let mut vm = Vm::light(&cache).map_err(broken)?;
    let hash = vm.hash(&question.input);
    warm.push(Warm { key: question.key.clone(), used, vm });
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_of_several_keys_are_those_of_the_reference() {
        let verifier = Verifier::start().unwrap();
        let wanted = [
            ("test key 000", "This is a test", "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"),
            (
                "test key 001",
                "sed do eiusmod tempor incididunt ut labore et dolore magna aliqua",
                "e9ff4503201c0c2cca26d285c93ae883f9b1d30c9eb240b820756f2d5a7905fc",
            ),
            (
                "test key 000",
                "Lorem ipsum dolor sit amet",
                "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969",
            ),
        ];
        for (key, input, hash) in wanted {
            let computed = verifier.hash(Algorithm::Randomx, key.as_bytes(), input.as_bytes()).await.unwrap();
            assert_eq!(hex::encode(computed), hash);
        }
    }

    /// <https://github.com/bitcoin/bitcoin/blob/master/src/kernel/chainparams.cpp> (the genesis block), and SHA-256 twice of nothing.
    #[tokio::test]
    async fn sha256d_hashes_are_those_of_the_reference() {
        let verifier = Verifier::start().unwrap();
        let genesis = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc8\
                       1bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
        for (input, hash) in [
            (genesis, "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"),
            ("", "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"),
        ] {
            let computed = verifier.hash(Algorithm::Sha256d, b"", &hex::decode(input).unwrap()).await.unwrap();
            assert_eq!(hex::encode(computed), hash);
        }
    }
}
