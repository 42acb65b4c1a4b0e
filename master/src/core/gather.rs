//! Puts the outputs of a job's units together, and refuses outputs that don't answer their unit.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flota_proto::kinds::{ChatResult, EchoResult, EmbedResult, Found, HashResult, SearchResult};
use flota_proto::{HexBytes, Kind};

use crate::submit::Work;

/// What the completed units of a job gave so far.
#[derive(Clone, Debug, Default)]
pub enum Gather {
    /// Nothing, or a job of one unit whose output is the result.
    #[default]
    Single,
    /// A vector for each of so many texts, in one unit; of 0 nobody knows how many.
    Vectors(u64),
    /// Hashes by the index of the first input of each piece.
    Hashes {
        /// The pieces.
        pieces: BTreeMap<u64, Vec<HexBytes>>,
        /// `light` if any piece was.
        mode: String,
    },
    /// Finds and coverage.
    Search {
        /// By nonce.
        found: BTreeSet<Found>,
        /// Ranges by start, merged.
        covered: BTreeMap<u64, u64>,
        /// Repeats count too.
        hashes_computed: u64,
    },
}

/// A part of a job with the output that a worker sent for it.
pub struct Part<'a> {
    /// The first input or nonce.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// JSON of the kind.
    pub output: &'a [u8],
}

impl Gather {
    /// An empty one for a job of `kind`, which wants vectors of so many `texts`.
    #[must_use]
    pub fn new(kind: Kind, texts: u64) -> Self {
        match kind {
            Kind::Hash(_) => Self::Hashes { pieces: BTreeMap::new(), mode: String::new() },
            Kind::Search(_) => Self::Search { found: BTreeSet::new(), covered: BTreeMap::new(), hashes_computed: 0 },
            Kind::AiEmbed => Self::Vectors(texts),
            Kind::AiChat | Kind::Echo => Self::Single,
        }
    }

    /// Takes the output of a unit. Answers whether the job has what it wants before all is done (`find: first`).
    ///
    /// # Errors
    /// What is wrong with the output; nothing was taken.
    pub fn take(&mut self, kind: Kind, work: Work, part: &Part<'_>) -> Result<bool, String> {
        match self {
            Self::Single => check_single(kind, part.output).map(|()| false),
            Self::Vectors(texts) => check_vectors(*texts, &parse(part.output)?).map(|()| false),
            Self::Hashes { pieces, mode } => {
                let result: HashResult = parse(part.output)?;
                let expected = part.to - part.from;
                if result.hashes.len() as u64 != expected {
                    return Err(format!("{} hashes for {expected} inputs", result.hashes.len()));
                }
                if result.hashes.iter().any(|hash| hash.len() != 32) {
                    return Err("a hash that is not 32 bytes long".into());
                }
                if mode.is_empty() || result.mode == "light" {
                    *mode = result.mode;
                }
                pieces.insert(part.from, result.hashes);
                Ok(false)
            }
            Self::Search { found, covered, hashes_computed } => {
                let result: SearchResult = parse(part.output)?;
                let first = matches!(work, Work::Range { first: true, .. });
                check_search(kind, &result, part, first)?;
                let satisfied = first && !result.found.is_empty();
                found.extend(result.found);
                for [from, to] in result.covered {
                    cover(covered, from, to);
                }
                *hashes_computed = hashes_computed.saturating_add(result.hashes_computed);
                Ok(satisfied)
            }
        }
    }

    /// About how large the result is so far; of hashes nothing, as the payload bounds them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Single | Self::Vectors(_) | Self::Hashes { .. } => 0,
            // A find is a nonce of up to ten digits and 64 digits of hash; a range two such numbers.
            Self::Search { found, covered, .. } => found.len() * 100 + covered.len() * 24,
        }
    }

    /// Takes a part out again, with all that was found in it.
    pub fn drop_part(&mut self, from: u64, to: u64) {
        match self {
            Self::Single | Self::Vectors(_) => {}
            Self::Hashes { pieces, .. } => drop(pieces.remove(&from)),
            Self::Search { found, covered, hashes_computed } => {
                found.retain(|found| !(from..to).contains(&found.nonce));
                uncover(covered, from, to);
                *hashes_computed = hashes_computed.saturating_sub(to - from);
            }
        }
    }

    /// The job's result, JSON; of what is there so far where the job did not complete. `None` where that is nothing.
    #[must_use]
    pub fn result(&self) -> Option<Bytes> {
        let json = match self {
            Self::Single | Self::Vectors(_) => return None,
            Self::Hashes { pieces, .. } if pieces.is_empty() => return None,
            Self::Search { covered, .. } if covered.is_empty() => return None,
            Self::Hashes { pieces, mode } => {
                let mut covered = BTreeMap::new();
                for (from, hashes) in pieces {
                    cover(&mut covered, *from, from + hashes.len() as u64);
                }
                let hashes = pieces.values().flatten().cloned().collect();
                let gaps = covered.len() > 1 || !covered.contains_key(&0);
                let covered = if gaps { ranges(&covered) } else { Vec::new() };
                serde_json::to_vec(&HashResult { hashes, mode: mode.clone(), covered })
            }
            Self::Search { found, covered, hashes_computed } => serde_json::to_vec(&SearchResult {
                found: found.iter().cloned().collect(),
                hashes_computed: *hashes_computed,
                covered: ranges(covered),
                proof: Vec::new().into(),
            }),
        };
        json.ok().map(Bytes::from)
    }
}

fn ranges(covered: &BTreeMap<u64, u64>) -> Vec<[u64; 2]> {
    covered.iter().map(|(from, to)| [*from, *to]).collect()
}

fn parse<'a, T: serde::Deserialize<'a>>(output: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(output).map_err(|error| format!("it is no result of its kind: {error}"))
}

fn check_single(kind: Kind, output: &[u8]) -> Result<(), String> {
    match kind {
        Kind::AiChat => parse::<ChatResult>(output).map(drop),
        Kind::Echo => parse::<EchoResult>(output).map(drop),
        Kind::AiEmbed | Kind::Hash(_) | Kind::Search(_) => Err("it is not of a single unit".into()),
    }
}

/// As many vectors as texts, all of one length, of numbers: others can't be compared.
fn check_vectors(texts: u64, result: &EmbedResult) -> Result<(), String> {
    let vectors = &result.vectors;
    if texts > 0 && vectors.len() as u64 != texts {
        return Err(format!("{} vectors for {texts} texts", vectors.len()));
    }
    let length = vectors.first().map_or(0, Vec::len);
    if length == 0 || vectors.iter().any(|vector| vector.len() != length) {
        return Err("vectors of no or of different lengths".into());
    }
    if vectors.iter().flatten().any(|number| !number.is_finite()) {
        return Err("vectors with numbers beyond 32 bits".into());
    }
    Ok(())
}

fn check_search(kind: Kind, result: &SearchResult, part: &Part<'_>, first: bool) -> Result<(), String> {
    let mut covered = BTreeMap::new();
    for [from, to] in &result.covered {
        if from >= to || *from < part.from || *to > part.to {
            return Err(format!("covered {from}..{to} lies outside of {}..{}", part.from, part.to));
        }
        cover(&mut covered, *from, *to);
    }
    let inside = |nonce: u64| covered.range(..=nonce).next_back().is_some_and(|(_, to)| nonce < *to);
    if let Some(stray) = result.found.iter().find(|found| !inside(found.nonce)) {
        return Err(format!("found nonce {} was not covered", stray.nonce));
    }
    if result.found.iter().any(|found| found.hash.len() != 32) {
        return Err("a hash that is not 32 bytes long".into());
    }
    if kind.algorithm().is_some_and(|algorithm| !result.proof_fits(algorithm)) {
        return Err(format!("its proof of {} bytes does not fit what it covered", result.proof.len()));
    }
    let whole = covered.len() == 1 && covered.get(&part.from) == Some(&part.to);
    let early = first && !result.found.is_empty();
    if whole || early { Ok(()) } else { Err(format!("it does not cover {}..{}", part.from, part.to)) }
}

/// Adds `[from, to)` to ranges kept by start, merged.
fn cover(ranges: &mut BTreeMap<u64, u64>, mut from: u64, mut to: u64) {
    let touching: Vec<u64> = ranges.range(..=to).rev().take_while(|(_, end)| **end >= from).map(|(s, _)| *s).collect();
    for start in touching {
        if let Some(end) = ranges.remove(&start) {
            from = from.min(start);
            to = to.max(end);
        }
    }
    ranges.insert(from, to);
}

/// Takes `[from, to)` out of ranges kept by start.
fn uncover(ranges: &mut BTreeMap<u64, u64>, from: u64, to: u64) {
    let touched: Vec<(u64, u64)> =
        ranges.range(..to).rev().map(|(s, e)| (*s, *e)).take_while(|(_, e)| *e > from).collect();
    for (start, end) in touched {
        ranges.remove(&start);
        if start < from {
            ranges.insert(start, from);
        }
        if to < end {
            ranges.insert(to, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use flota_proto::Algorithm;

    use super::*;

    const ALL: Work = Work::Range { start: 0, end: 100, first: false };
    const FIRST: Work = Work::Range { start: 0, end: 100, first: true };

    fn take(gather: &mut Gather, work: Work, from: u64, to: u64, output: &str) -> Result<bool, String> {
        gather.take(Kind::Search(Algorithm::Randomx), work, &Part { from, to, output: output.as_bytes() })
    }

    fn single(kind: Kind, texts: u64, output: &str) -> Result<bool, String> {
        let part = Part { from: 0, to: 1, output: output.as_bytes() };
        Gather::new(kind, texts).take(kind, Work::Single, &part)
    }

    #[test]
    fn an_echo_answers_with_a_value() {
        for output in ["null", "[]", "1", r#"{"x":1}"#, "", r#"{"value":"#] {
            assert!(single(Kind::Echo, 0, output).is_err(), "{output}");
        }
        for output in [r#"{"value":null}"#, r#"{"value":[1]}"#, r#"{"value":1,"later":2}"#] {
            assert_eq!(single(Kind::Echo, 0, output), Ok(false), "{output}");
        }
    }

    #[test]
    fn embeddings_are_one_vector_a_text_that_can_be_compared() {
        let vectors = |text: &str| single(Kind::AiEmbed, 2, &format!(r#"{{"vectors":{text},"model":"m"}}"#));
        for wrong in [
            "[]",
            "[[1]]",
            "[[1],[2],[3]]",
            "[[],[]]",
            "[[1],[1,2]]",
            "[[1],[1e39]]",
            r#"[["a"],["b"]]"#,
            "[1,2]",
            "null",
        ] {
            assert!(vectors(wrong).is_err(), "{wrong}");
        }
        assert!(vectors("[[1]]").unwrap_err().contains("1 vectors for 2 texts"));
        assert_eq!(vectors("[[1.5,0],[-2,3]]"), Ok(false));
        for other in ["null", "[]", r#"{"vectors":[[1],[2]]}"#, r#"{"text":"x"}"#] {
            assert!(single(Kind::AiEmbed, 2, other).is_err(), "{other}");
        }
        assert!(single(Kind::AiEmbed, 0, r#"{"vectors":[[1]],"model":"m"}"#).is_ok(), "of a job stored before");
    }

    #[test]
    fn ranges_merge_whatever_the_order() {
        let mut ranges = BTreeMap::new();
        for (from, to) in [(10, 20), (30, 40), (0, 5), (20, 30), (5, 10)] {
            cover(&mut ranges, from, to);
        }
        assert_eq!(ranges, BTreeMap::from([(0, 40)]));
    }

    #[test]
    fn a_part_that_is_taken_out_leaves_the_others() {
        let mut ranges = BTreeMap::from([(0, 40), (50, 60)]);
        uncover(&mut ranges, 10, 20);
        assert_eq!(ranges, BTreeMap::from([(0, 10), (20, 40), (50, 60)]));
        uncover(&mut ranges, 30, 55);
        assert_eq!(ranges, BTreeMap::from([(0, 10), (20, 30), (55, 60)]));
        uncover(&mut ranges, 0, 100);
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_search_output_must_cover_its_unit() {
        let mut gather = Gather::new(Kind::Search(Algorithm::Randomx), 0);
        let short = r#"{"found":[],"hashes_computed":5,"covered":[[0,5]]}"#;
        assert!(take(&mut gather, ALL, 0, 10, short).is_err());
        assert!(take(&mut gather, FIRST, 0, 10, short).is_err());
        assert!(take(&mut gather, ALL, 0, 5, short).is_ok());
        assert!(take(&mut gather, ALL, 0, 4, short).is_err());
    }

    #[test]
    fn a_first_find_satisfies_and_says_what_was_covered() {
        let mut gather = Gather::new(Kind::Search(Algorithm::Randomx), 0);
        let hash = "00".repeat(32);
        let found = format!(r#"{{"found":[{{"nonce":3,"hash":"{hash}"}}],"hashes_computed":4,"covered":[[0,4]]}}"#);
        assert_eq!(take(&mut gather, FIRST, 0, 10, &found), Ok(true));
        let stray = format!(r#"{{"found":[{{"nonce":7,"hash":"{hash}"}}],"hashes_computed":4,"covered":[[0,4]]}}"#);
        assert!(take(&mut gather, FIRST, 0, 10, &stray).is_err());
    }

    #[test]
    fn hashes_come_out_in_the_order_of_the_inputs() {
        let mut gather = Gather::new(Kind::Hash(Algorithm::Randomx), 0);
        let piece = |byte: &str| format!(r#"{{"hashes":["{}"],"mode":"light"}}"#, byte.repeat(32));
        for (from, byte) in [(1, "bb"), (0, "aa")] {
            let output = piece(byte);
            let part = Part { from, to: from + 1, output: output.as_bytes() };
            gather.take(Kind::Hash(Algorithm::Randomx), Work::List(2), &part).unwrap();
        }
        let result = String::from_utf8(gather.result().unwrap().to_vec()).unwrap();
        assert!(result.find("aaaa").unwrap() < result.find("bbbb").unwrap());
        assert!(!result.contains("covered"), "they are the first inputs: {result}");
        let part = Part { from: 0, to: 2, output: piece("aa").as_bytes().to_vec().leak() };
        assert!(gather.take(Kind::Hash(Algorithm::Randomx), Work::List(2), &part).is_err());
    }

    #[test]
    fn hashes_of_a_part_say_which_inputs_they_belong_to() {
        let mut gather = Gather::new(Kind::Hash(Algorithm::Randomx), 0);
        let hash = "cc".repeat(32);
        for from in [7, 2, 3] {
            let output = format!(r#"{{"hashes":["{hash}"],"mode":"fast"}}"#);
            let part = Part { from, to: from + 1, output: output.as_bytes() };
            gather.take(Kind::Hash(Algorithm::Randomx), Work::List(9), &part).unwrap();
        }
        let result: HashResult = serde_json::from_slice(&gather.result().unwrap()).unwrap();
        assert_eq!((result.hashes.len(), result.covered), (3, vec![[2, 4], [7, 8]]));
    }
}
