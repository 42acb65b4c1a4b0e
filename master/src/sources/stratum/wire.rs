//! What miners and pools say to each other: JSON, one message a line.

use flota_proto::kinds::{Find, NONCE_END_MAX};
use flota_proto::sources::PoolConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sources::desk::Work;
use crate::sources::monerod::block;

/// The one algorithm that this fleet computes.
pub const ALGORITHM: &str = "rx/0";
/// The longest name of a job.
const JOB_ID_BYTES_MAX: usize = 256;

/// Any message of a pool: an answer where it has an id, else news.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Of the request that it answers.
    #[serde(default)]
    pub id: Option<u64>,
    /// Of news: `job`.
    #[serde(default)]
    pub method: Option<String>,
    /// Of news.
    #[serde(default)]
    pub params: Value,
    /// Of an answer.
    #[serde(default)]
    pub result: Value,
    /// Of an answer that says no.
    #[serde(default)]
    pub error: Value,
}

impl Message {
    /// What an answer says no with.
    pub fn refusal(&self) -> Option<String> {
        if self.error.is_null() {
            return None;
        }
        let said = self.error["message"].as_str().or(self.error.as_str()).unwrap_or("no reason given");
        Some(said.chars().filter(|c| !c.is_control()).take(100).collect())
    }
}

/// What a login is answered with.
#[derive(Debug, Deserialize)]
pub struct LoginAnswer {
    /// What the pool calls this session.
    pub id: String,
    /// The first job, where there is one.
    #[serde(default)]
    pub job: Option<RawJob>,
    /// What the pool can do.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// A job as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawJob {
    /// What is hashed, hex.
    pub blob: String,
    /// The pool's name for it.
    pub job_id: String,
    /// 4 or 8 bytes, little endian, hex.
    pub target: String,
    /// `rx/0` where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algo: Option<String>,
    /// Of the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// The RandomX key, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_hash: Option<String>,
    /// The key that follows, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seed_hash: Option<String>,
    /// What the server calls the session; some miners want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl RawJob {
    /// Checks it; with `nicehash` the nonce's top byte is the pool's, whatever it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn work(&self, nicehash: bool) -> Result<Work, String> {
        if let Some(algo) = self.algo.as_deref().filter(|algo| *algo != ALGORITHM) {
            return Err(format!("its algorithm is '{}', this fleet computes {ALGORITHM}", algo.escape_debug()));
        }
        if self.job_id.is_empty() || self.job_id.len() > JOB_ID_BYTES_MAX {
            return Err(format!("job_id must have 1 to {JOB_ID_BYTES_MAX} bytes"));
        }
        let blob = hex::decode(&self.blob).map_err(|error| format!("blob: {error}"))?;
        let header = block::hashing_blob(&blob).map_err(|error| format!("blob: {error}"))?;
        let key = key("seed_hash", self.seed_hash.as_deref().ok_or("it has no seed_hash")?)?;
        let next_key = match self.next_seed_hash.as_deref() {
            None | Some("") => None,
            Some(next) => Some(self::key("next_seed_hash", next)?).filter(|next| *next != key),
        };
        let limit = target(&self.target)?;
        let mut wide = [0; 32];
        wide[24..].copy_from_slice(&limit.to_le_bytes());
        let top = u64::from(blob.get(header.nonce_offset + 3).copied().unwrap_or(0));
        let nonces = if nicehash || top != 0 { (top << 24, (top + 1) << 24) } else { (0, NONCE_END_MAX) };
        Ok(Work {
            key,
            next_key,
            blob,
            nonce_offset: header.nonce_offset,
            nonces,
            target: wide,
            difficulty: u64::MAX / limit,
            find: Find::All,
            height: self.height,
            pool_job_id: Some(self.job_id.clone()),
        })
    }
}

fn key(name: &str, text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text).map_err(|error| format!("{name}: {error}"))?;
    bytes.try_into().map_err(|_| format!("{name}: it is not 32 bytes long"))
}

/// What the last 8 bytes of a hash, little endian, must be below.
fn target(text: &str) -> Result<u64, String> {
    let bytes = hex::decode(text).map_err(|error| format!("target: {error}"))?;
    let limit = match bytes[..] {
        [a, b, c, d] => match u64::from(u32::from_le_bytes([a, b, c, d])) {
            0 => 0,
            short => u64::MAX / (u64::from(u32::MAX) / short),
        },
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Err(format!("target: it has {} bytes, not 4 or 8", bytes.len())),
    };
    if limit == 0 { Err("target: it is 0, below which no hash is".into()) } else { Ok(limit) }
}

/// The target of `difficulty`, as it stands on the wire.
pub fn target_of(difficulty: u64) -> String {
    hex::encode((u64::MAX / difficulty.max(1)).to_le_bytes())
}

/// The first thing said to a pool.
pub fn login(id: u64, pool: &PoolConfig) -> Value {
    let mut params = json!({
        "login": pool.user, "pass": pool.password.as_deref().unwrap_or("x"),
        "agent": concat!("flota/", env!("CARGO_PKG_VERSION")), "algo": [ALGORITHM],
    });
    if let Some(rig_id) = &pool.rig_id {
        params["rigid"] = json!(rig_id);
    }
    json!({ "id": id, "jsonrpc": "2.0", "method": "login", "params": params })
}

/// A share.
pub fn submit(id: u64, session: &str, job: &str, nonce: u32, hash: &[u8]) -> Value {
    let params = json!({
        "id": session, "job_id": job, "nonce": hex::encode(nonce.to_le_bytes()), "result": hex::encode(hash),
        "algo": ALGORITHM,
    });
    json!({ "id": id, "jsonrpc": "2.0", "method": "submit", "params": params })
}

/// A sign of life.
pub fn keepalive(id: u64, session: &str) -> Value {
    json!({ "id": id, "jsonrpc": "2.0", "method": "keepalived", "params": { "id": session } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3000000000c6d813a42d3b3b8b99446f0aba451e668b4c72a511cb465cc4dd000ec765a1301";

    fn raw() -> RawJob {
        RawJob {
            blob: BLOB.into(),
            job_id: "7".into(),
            target: "b88d0600".into(),
            algo: Some("rx/0".into()),
            height: Some(5),
            seed_hash: Some("11".repeat(32)),
            next_seed_hash: None,
            id: None,
        }
    }

    #[test]
    fn short_targets_are_those_of_other_miners() {
        // 0x00068db8 is the short target of difficulty 10,000.
        let work = raw().work(false).unwrap();
        assert_eq!(work.difficulty, 10_000);
        assert_eq!(work.nonces, (0, 1 << 32));
        assert_eq!(target("ffffffff"), Ok(u64::MAX));
        assert_eq!(target("0100000000000000"), Ok(1));
        let there_and_back = target(&target_of(1234)).unwrap();
        assert_eq!(u64::MAX / there_and_back, 1234);
    }

    #[test]
    fn a_nonce_with_a_top_byte_leaves_24_bits() {
        let mut job = raw();
        job.blob.replace_range(84..86, "a7");
        assert_eq!(job.work(false).unwrap().nonces, (0xa700_0000, 0xa800_0000));
        assert_eq!(raw().work(true).unwrap().nonces, (0, 1 << 24));
    }

    type Spoil = fn(&mut RawJob);

    #[test]
    fn jobs_that_can_not_be_computed_are_refused_with_what_is_wrong() {
        let spoilt: [(&str, Spoil); 10] = [
            ("algorithm is 'cn/r'", |job| job.algo = Some("cn/r".into())),
            ("target: it is 0", |job| job.target = "00000000".into()),
            ("target: it is 0", |job| job.target = "0000000000000000".into()),
            ("target: it has 3 bytes", |job| job.target = "000000".into()),
            ("target", |job| job.target = "zz".into()),
            ("no seed_hash", |job| job.seed_hash = None),
            ("seed_hash", |job| job.seed_hash = Some("11".into())),
            ("blob", |job| job.blob.truncate(70)),
            ("blob", |job| job.blob = "xyz".into()),
            ("job_id", |job| job.job_id.clear()),
        ];
        for (wanted, spoil) in spoilt {
            let mut job = raw();
            spoil(&mut job);
            let error = job.work(false).unwrap_err();
            assert!(error.contains(wanted), "{error} should name {wanted}");
        }
    }
}
