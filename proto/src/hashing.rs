//! Hashing: which algorithms there are, and the jobs of each: `NAME.hash` and `NAME.search`.
//!
//! Everything that differs between algorithms and that another part than their executors has to know is in [`Algorithm`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::HexBytes;
use crate::kinds::{FieldError, check};

/// A way to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Algorithm {
    /// RandomX v1, Monero's proof of work.
    #[serde(rename = "rx/0")]
    Randomx,
    /// SHA-256 of the SHA-256, Bitcoin's proof of work.
    #[serde(rename = "sha256d")]
    Sha256d,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Randomx, Self::Sha256d];

    /// The capability that a worker announces among its features.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Randomx => "rx/0",
            Self::Sha256d => "sha256d",
        }
    }

    /// The name of its hash jobs.
    #[must_use]
    pub const fn hash_kind(self) -> &'static str {
        match self {
            Self::Randomx => "randomx.hash",
            Self::Sha256d => "sha256d.hash",
        }
    }

    /// The name of its search jobs.
    #[must_use]
    pub const fn search_kind(self) -> &'static str {
        match self {
            Self::Randomx => "randomx.search",
            Self::Sha256d => "sha256d.search",
        }
    }

    /// Whether it hashes with a key.
    #[must_use]
    pub const fn has_key(self) -> bool {
        match self {
            Self::Randomx => true,
            Self::Sha256d => false,
        }
    }

    /// How many nonces share two bytes in the proof of a search: as many as the master computes again in the time of one slow hash.
    #[must_use]
    pub const fn proof_step(self) -> u64 {
        match self {
            Self::Randomx => 1,
            Self::Sha256d => 4096,
        }
    }

    /// Nonces in a unit of a search at most: its proof has a place in one message.
    #[must_use]
    pub const fn search_unit_max(self) -> u64 {
        PROOF_GROUPS_MAX * self.proof_step()
    }

    /// How long the blob of a search may be: where many nonces share a proof, each has to be cheap.
    #[must_use]
    pub const fn blob_bytes_max(self) -> usize {
        match self {
            Self::Randomx => usize::MAX,
            Self::Sha256d => 1024,
        }
    }

    /// Hashes a second and core, before a worker's speed is measured.
    #[must_use]
    pub const fn assumed_rate(self) -> f64 {
        match self {
            Self::Randomx => 8.0,
            Self::Sha256d => 500_000.0,
        }
    }
}

/// The longest RandomX key.
pub const RANDOMX_KEY_BYTES_MAX: usize = 60;
/// One past the last nonce.
pub const NONCE_END_MAX: u64 = 1 << 32;
/// Inputs in a unit of a hash job at most: its hashes have a place in one message.
pub const HASH_UNIT_MAX: u64 = 1 << 13;
/// Groups of nonces in the proof of a unit at most.
pub const PROOF_GROUPS_MAX: u64 = 1 << 16;

// A hash is 64 digits, two quotes and a comma.
const _: () = assert!(HASH_UNIT_MAX * 67 < crate::GRPC_MESSAGE_BYTES_MAX as u64 * 3 / 4);
// A group is four digits.
const _: () = assert!(PROOF_GROUPS_MAX * 4 < crate::GRPC_MESSAGE_BYTES_MAX as u64 * 3 / 4);

/// `randomx.hash`, `sha256d.hash`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HashPayload {
    /// Of `randomx.hash`, and needed there: 0 to 60 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<HexBytes>,
    /// At least one; an empty one is valid.
    #[schema(value_type = Vec<String>)]
    pub inputs: Vec<HexBytes>,
}

/// The result of `randomx.hash` and `sha256d.hash`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HashResult {
    /// In the order of the inputs, 32 bytes each.
    #[schema(value_type = Vec<String>)]
    pub hashes: Vec<HexBytes>,
    /// Of `randomx.hash`: `light` or `fast`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Of a job that did not complete: the half-open ranges `[from, to)` of the inputs that the hashes belong to, by start and
    /// merged. Without it they belong to the first inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covered: Vec<[u64; 2]>,
}

/// Whether a search ends with its first find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Find {
    /// The one that is reported first.
    First,
    /// Every one in the range.
    All,
}

/// `randomx.search`, `sha256d.search`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchPayload {
    /// Of `randomx.search`, and needed there: 0 to 60 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<HexBytes>,
    /// What is hashed, with the nonce written into it.
    #[schema(value_type = String)]
    pub blob: HexBytes,
    /// Where in `blob` the 4 bytes of the nonce stand, little endian.
    pub nonce_offset: u64,
    /// The first nonce.
    pub nonce_start: u64,
    /// One past the last nonce, at most 2³².
    pub nonce_end: u64,
    /// 32 bytes, little endian: a hash below it wins.
    #[schema(value_type = String)]
    pub target: HexBytes,
    /// `first` or `all`.
    pub find: Find,
}

impl SearchPayload {
    /// The blob with `nonce` in it.
    #[must_use]
    pub fn input(&self, nonce: u64) -> Vec<u8> {
        let mut blob = self.blob.to_vec();
        let place = blob.iter_mut().skip(usize::try_from(self.nonce_offset).unwrap_or(usize::MAX));
        place.zip((nonce as u32).to_le_bytes()).for_each(|(byte, digit)| *byte = digit);
        blob
    }

    /// How many nonces it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nonce_end.saturating_sub(self.nonce_start)
    }
}

/// Whether a hash wins: it is strictly below the target, both read as little-endian numbers of the same length.
#[must_use]
pub fn wins(hash: &[u8], target: &[u8]) -> bool {
    hash.iter().rev().lt(target.iter().rev())
}

/// One winning nonce.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// The nonce.
    pub nonce: u64,
    /// Its hash, 32 bytes.
    #[schema(value_type = String)]
    pub hash: HexBytes,
}

/// The result of `randomx.search` and `sha256d.search`, of one unit and of the whole job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchResult {
    /// By nonce.
    pub found: Vec<Found>,
    /// Repeats count too.
    pub hashes_computed: u64,
    /// Half-open ranges `[from, to)` that were computed, by start and merged.
    pub covered: Vec<[u64; 2]>,
    /// Of a unit, so that the master can compute some of it again, and not kept: each range covered is cut into groups of as many
    /// nonces as the algorithm says (1 of `rx/0`, 4096 of `sha256d`; the last may be smaller), and of each group here are, combined
    /// by exclusive or, the two highest bytes of its hashes (bytes 31 and 30, in this order).
    #[serde(default, skip_serializing_if = "no_bytes")]
    #[schema(value_type = String)]
    pub proof: HexBytes,
}

impl SearchResult {
    /// The groups `[from, to)` of what is covered, in the order of the proof.
    pub fn groups(&self, algorithm: Algorithm) -> impl Iterator<Item = [u64; 2]> + '_ {
        let step = algorithm.proof_step();
        let groups = move |[from, to]: [u64; 2]| {
            let starts = std::iter::successors(Some(from), move |start| start.checked_add(step));
            starts.take_while(move |start| *start < to).map(move |start| [start, start.saturating_add(step).min(to)])
        };
        self.covered.iter().copied().flat_map(groups)
    }

    /// The group at this place in that order.
    #[must_use]
    pub fn group(&self, algorithm: Algorithm, mut index: u64) -> Option<[u64; 2]> {
        let step = algorithm.proof_step();
        for [from, to] in self.covered.iter().copied() {
            let groups = to.saturating_sub(from).div_ceil(step);
            if index < groups {
                let start = from + index * step;
                return Some([start, start.saturating_add(step).min(to)]);
            }
            index -= groups;
        }
        None
    }

    /// How many those are.
    #[must_use]
    pub fn groups_count(&self, algorithm: Algorithm) -> u64 {
        let of = |[from, to]: &[u64; 2]| to.saturating_sub(*from).div_ceil(algorithm.proof_step());
        self.covered.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Whether the proof, if there is one, has as many groups as are covered.
    #[must_use]
    pub fn proof_fits(&self, algorithm: Algorithm) -> bool {
        self.proof.is_empty() || Some(self.proof.len() as u64) == self.groups_count(algorithm).checked_mul(2)
    }
}

fn no_bytes(bytes: &HexBytes) -> bool {
    bytes.is_empty()
}

/// Whether the payload of a hash job of `algorithm` is valid.
pub(crate) fn validate_hash(algorithm: Algorithm, p: &HashPayload) -> Result<(), FieldError> {
    check_key(algorithm, p.key.as_ref())?;
    check(!p.inputs.is_empty(), "payload.inputs", || "needs at least one input".into())
}

/// Whether the payload of a search of `algorithm` is valid.
pub(crate) fn validate_search(algorithm: Algorithm, p: &SearchPayload) -> Result<(), FieldError> {
    check_key(algorithm, p.key.as_ref())?;
    check(p.blob.len() <= algorithm.blob_bytes_max(), "payload.blob", || {
        format!("must be at most {} bytes, has {}", algorithm.blob_bytes_max(), p.blob.len())
    })?;
    let fits = p.nonce_offset.checked_add(4).is_some_and(|end| end <= p.blob.len() as u64);
    check(fits, "payload.nonce_offset", || {
        format!("the nonce takes 4 bytes at nonce_offset {} but the blob has {} bytes", p.nonce_offset, p.blob.len())
    })?;
    check(p.nonce_end <= NONCE_END_MAX, "payload.nonce_end", || {
        format!("is {}, beyond 2^32 ({NONCE_END_MAX})", p.nonce_end)
    })?;
    check(p.nonce_start < p.nonce_end, "payload.nonce_end", || {
        format!(
            "the range {}..{} is empty or reversed: nonce_start must be below nonce_end",
            p.nonce_start, p.nonce_end
        )
    })?;
    check(p.target.len() == 32, "payload.target", || format!("needs 32 bytes (64 hex digits), has {}", p.target.len()))
}

fn check_key(algorithm: Algorithm, key: Option<&HexBytes>) -> Result<(), FieldError> {
    match key {
        None => check(!algorithm.has_key(), "payload.key", || "missing field `key`".into()),
        Some(_) if !algorithm.has_key() => {
            let message = format!("unknown field `key`: {} has none", algorithm.as_str());
            Err(FieldError::new("payload.key", message))
        }
        Some(key) => check(key.len() <= RANDOMX_KEY_BYTES_MAX, "payload.key", || {
            format!("must be at most {RANDOMX_KEY_BYTES_MAX} bytes, has {}", key.len())
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kinds::{Kind, Payload};

    fn path_of(kind: &str, json: &str) -> Result<(), String> {
        let json = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
        Payload::parse(kind.parse().unwrap(), &json).map(drop).map_err(|error| error.path)
    }

    #[test]
    fn a_key_is_needed_where_the_algorithm_has_one_and_refused_where_it_has_none() {
        assert_eq!(path_of("randomx.hash", r#"{"key":"","inputs":[""]}"#), Ok(()));
        assert_eq!(path_of("randomx.hash", r#"{"inputs":[""]}"#), Err("payload.key".into()));
        assert_eq!(path_of("sha256d.hash", r#"{"inputs":[""]}"#), Ok(()));
        assert_eq!(path_of("sha256d.hash", r#"{"key":"","inputs":[""]}"#), Err("payload.key".into()));
        assert_eq!(path_of("sha256d.hash", r#"{"inputs":[]}"#), Err("payload.inputs".into()));
        let long = format!(r#"{{"key":"{}","inputs":[""]}}"#, "00".repeat(61));
        assert_eq!(path_of("randomx.hash", &long), Err("payload.key".into()));
    }

    #[test]
    fn a_search_must_have_a_range_within_the_nonces() {
        for (kind, key) in [("randomx.search", r#""key":"00","#), ("sha256d.search", "")] {
            let search = |offset: u64, start: u64, end: u64, target: &str| {
                let blob = "00".repeat(43);
                let json = format!(
                    r#"{{{key}"blob":"{blob}","nonce_offset":{offset},"nonce_start":{start},"nonce_end":{end},"target":"{target}","find":"all"}}"#
                );
                path_of(kind, &json)
            };
            let target = "ff".repeat(32);
            assert_eq!(search(39, 0, 1 << 32, &target), Ok(()));
            assert_eq!(search(40, 0, 1, &target), Err("payload.nonce_offset".into()));
            assert_eq!(search(u64::MAX, 0, 1, &target), Err("payload.nonce_offset".into()));
            assert_eq!(search(39, 0, (1 << 32) + 1, &target), Err("payload.nonce_end".into()));
            assert_eq!(search(39, 5, 5, &target), Err("payload.nonce_end".into()));
            assert_eq!(search(39, 0, 1, "ff"), Err("payload.target".into()));
        }
    }

    #[test]
    fn a_blob_of_which_many_are_hashed_for_one_proof_is_short() {
        let search = |kind: &str, key: &str, bytes: usize| {
            let (blob, target) = ("00".repeat(bytes), "ff".repeat(32));
            let rest = r#""nonce_offset":0,"nonce_start":0,"nonce_end":1,"find":"all""#;
            path_of(kind, &format!(r#"{{{key}"blob":"{blob}","target":"{target}",{rest}}}"#))
        };
        assert_eq!(search("sha256d.search", "", 1024), Ok(()));
        assert_eq!(search("sha256d.search", "", 1025), Err("payload.blob".into()));
        assert_eq!(search("randomx.search", r#""key":"","#, 5000), Ok(()));
    }

    #[test]
    fn every_algorithm_has_names_of_its_own() {
        for algorithm in Algorithm::ALL {
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
            assert_eq!(algorithm.hash_kind().parse(), Ok(Kind::Hash(algorithm)));
            assert_eq!(algorithm.search_kind().parse(), Ok(Kind::Search(algorithm)));
        }
    }

    #[test]
    fn a_hash_wins_strictly_below_the_target_as_a_little_endian_number() {
        let number = |low: u8, high: u8| {
            let mut bytes = [0_u8; 32];
            (bytes[0], bytes[31]) = (low, high);
            bytes
        };
        assert!(wins(&number(255, 1), &number(0, 2)));
        assert!(wins(&number(1, 2), &number(2, 2)));
        assert!(!wins(&number(2, 2), &number(2, 2)));
        assert!(!wins(&number(0, 3), &number(255, 2)));
    }

    #[test]
    fn the_nonce_is_written_little_endian_at_its_offset() {
        let search = SearchPayload {
            key: None,
            blob: HexBytes(vec![9; 7]),
            nonce_offset: 2,
            nonce_start: 0,
            nonce_end: 1 << 32,
            target: HexBytes(vec![0; 32]),
            find: Find::All,
        };
        assert_eq!(search.input(0x0102_0304), [9, 9, 4, 3, 2, 1, 9]);
    }

    proptest! {
        #[test]
        fn the_groups_of_a_proof_are_what_is_covered_cut_into_steps(
            ranges in proptest::collection::vec((0_u64..1 << 20, 0_u64..20_000), 0..4),
        ) {
            let covered: Vec<[u64; 2]> = ranges.iter().map(|(from, length)| [*from, from + length]).collect();
            let result = SearchResult { covered: covered.clone(), ..SearchResult::default() };
            for algorithm in Algorithm::ALL {
                let groups: Vec<[u64; 2]> = result.groups(algorithm).collect();
                prop_assert_eq!(groups.len() as u64, result.groups_count(algorithm));
                let by_index = (0..=result.groups_count(algorithm)).filter_map(|index| result.group(algorithm, index));
                prop_assert_eq!(by_index.collect::<Vec<_>>(), groups.clone());
                prop_assert!(groups.iter().all(|[from, to]| from < to && to - from <= algorithm.proof_step()));
                let nonces = |ranges: &[[u64; 2]]| ranges.iter().flat_map(|[from, to]| *from..*to).collect::<Vec<_>>();
                prop_assert_eq!(nonces(&groups), nonces(&covered));
            }
        }
    }
}
