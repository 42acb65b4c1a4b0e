//! Results that are too large for one message: their parts are put together here, at most one a stream and none larger than may be
//! kept. What breaks off is begun again by its worker on the next stream. All streams together hold as much as a few of the largest
//! results need; one for which there is no room is put off: its worker keeps it and begins again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use flota_common::clock;
use flota_proto::rest::JobError;
use flota_proto::v1;

/// All streams together hold as much as so many results of the largest size.
const LARGEST_HELD: usize = 4;
/// A result of which nothing more comes for so long gives up its room: its worker may have been told that nobody wants it.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// What all streams of a master hold of unfinished results.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<AtomicUsize>);

/// One stream's part of it.
#[derive(Debug, Default)]
struct Share {
    of: Memory,
    bytes: usize,
}

impl Share {
    /// Makes the share `bytes` large, unless all together would hold more than `most`.
    fn reach(&mut self, bytes: usize, most: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = |held: usize| held.checked_add(more).filter(|held| *held <= most);
        let taken = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if taken { more } else { 0 };
        taken
    }

    fn give_back(&mut self) {
        self.of.0.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A result that is on its way.
#[derive(Debug)]
pub(super) struct Parts {
    /// Whose it is, as the worker spells it.
    of: Option<(String, u64)>,
    output: BytesMut,
    /// How large it becomes, as its worker says.
    bytes: usize,
    bytes_max: usize,
    /// There was more of it than may be kept.
    too_large: bool,
    share: Share,
    /// When the last part of it came.
    last: Instant,
    /// The one that was put off last: what comes of it before it begins again is left out.
    put_off: Option<(String, u64)>,
    /// What was put off and its worker was not told yet.
    untold: Vec<v1::Attempt>,
}

/// What came of a result whose last piece is here.
#[derive(Debug, PartialEq)]
pub(super) enum Whole {
    /// All of it.
    Output(Bytes),
    /// It is sent again.
    PutOff,
    /// More than may be kept.
    TooLarge(JobError),
    /// Pieces of it are missing.
    Incomplete(JobError),
}

impl Default for Parts {
    fn default() -> Self {
        Self::new(flota_proto::BODY_BYTES_MAX, Memory::default())
    }
}

impl Parts {
    /// Takes outputs of at most so many bytes, and of `memory`.
    pub(super) fn new(bytes_max: usize, memory: Memory) -> Self {
        Self {
            of: None,
            output: BytesMut::new(),
            bytes: 0,
            bytes_max,
            too_large: false,
            share: Share { of: memory, bytes: 0 },
            last: clock::instant(),
            put_off: None,
            untold: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, part: v1::ResultPart) {
        let v1::ResultPart { unit_id, attempt, output_from, output, output_bytes } = part;
        if output_from == 0 {
            self.clear();
            self.put_off = None;
            self.of = Some((unit_id, attempt));
            self.bytes = usize::try_from(output_bytes).unwrap_or(usize::MAX);
        } else if !self.continues(&unit_id, attempt, output_from) {
            return self.clear();
        }
        self.last = clock::instant();
        let bytes = self.bytes.max(self.output.len() + output.len());
        self.too_large |= bytes > self.bytes_max;
        if self.too_large {
            self.output = BytesMut::new();
            self.share.give_back();
        } else if self.share.reach(bytes, self.bytes_max.saturating_mul(LARGEST_HELD)) {
            self.output.reserve(bytes - self.output.len());
            self.output.extend_from_slice(&output);
        } else {
            self.put_off();
        }
    }

    /// The last piece, or the only one.
    pub(super) fn end(&mut self, unit_id: &str, attempt: u64, output_from: u64, last: Bytes) -> Whole {
        if output_from == 0 {
            return Whole::Output(last);
        }
        if self.put_off.as_ref().is_some_and(|(unit, of)| unit == unit_id && *of == attempt) {
            return Whole::PutOff;
        }
        let continues = self.continues(unit_id, attempt, output_from);
        let (mut output, too_large) = (std::mem::take(&mut self.output), self.too_large);
        self.clear();
        if continues && !too_large && output.len() + last.len() <= self.bytes_max {
            output.extend_from_slice(&last);
            return Whole::Output(output.freeze());
        }
        if !continues {
            let message = "parts of its result did not arrive".into();
            return Whole::Incomplete(JobError { code: "result_incomplete".into(), message });
        }
        let most = self.bytes_max;
        let message = format!("its result is larger than the {most} bytes that are kept (FLOTA_RESULT_MAX)");
        Whole::TooLarge(JobError { code: "result_too_large".into(), message })
    }

    /// What the worker is to send again after a while, told once. What got no further for long is put off too.
    pub(super) fn take_put_off(&mut self, now: Instant) -> Vec<v1::Attempt> {
        if self.share.bytes > 0 && now.saturating_duration_since(self.last) > QUIET_MAX {
            self.put_off();
        }
        std::mem::take(&mut self.untold)
    }

    fn put_off(&mut self) {
        self.put_off = self.of.take();
        self.untold.extend(self.put_off.clone().map(|(unit_id, attempt)| v1::Attempt { unit_id, attempt }));
        self.clear();
    }

    /// Of one that is too large nothing is here to compare with.
    fn continues(&self, unit_id: &str, attempt: u64, from: u64) -> bool {
        let same = self.of.as_ref().is_some_and(|(unit, of)| unit == unit_id && *of == attempt);
        same && (self.too_large || self.output.len() as u64 == from)
    }

    fn clear(&mut self) {
        self.of = None;
        self.output = BytesMut::new();
        self.bytes = 0;
        self.too_large = false;
        self.share.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(unit: &str, attempt: u64, from: u64, output: &'static str) -> v1::ResultPart {
        v1::ResultPart {
            unit_id: unit.into(),
            attempt,
            output_from: from,
            output: output.as_bytes().into(),
            output_bytes: 0,
        }
    }

    fn end(parts: &mut Parts, unit: &str, from: u64, last: &'static str) -> Whole {
        parts.end(unit, 1, from, last.as_bytes().into())
    }

    #[test]
    fn parts_in_order_are_the_output_and_what_is_whole_passes_beside_them() {
        let mut parts = Parts::new(10, Memory::default());
        parts.add(part("a", 1, 0, "1234"));
        assert_eq!(end(&mut parts, "b", 0, "whole"), Whole::Output("whole".into()));
        parts.add(part("a", 1, 4, "567"));
        assert_eq!(end(&mut parts, "a", 7, "890"), Whole::Output("1234567890".into()));
        assert!(matches!(end(&mut parts, "a", 7, "890"), Whole::Incomplete(_)), "it is gone with its end");
    }

    #[test]
    fn what_does_not_continue_is_no_output() {
        let begin = || {
            let mut parts = Parts::new(10, Memory::default());
            parts.add(part("a", 1, 0, "1234"));
            parts
        };
        assert!(matches!(end(&mut begin(), "b", 4, "5"), Whole::Incomplete(_)), "another unit");
        assert!(matches!(begin().end("a", 2, 4, "5".into()), Whole::Incomplete(_)), "another attempt");
        assert!(matches!(end(&mut begin(), "a", 5, "5"), Whole::Incomplete(_)), "a gap");
        let mut parts = begin();
        parts.add(part("a", 1, 3, "45"));
        assert!(matches!(end(&mut parts, "a", 5, "6"), Whole::Incomplete(_)), "an overlap");
        let mut parts = begin();
        parts.add(part("a", 1, 0, "12"));
        assert_eq!(end(&mut parts, "a", 2, "3"), Whole::Output("123".into()), "it was begun again");
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_says_so() {
        let mut parts = Parts::new(10, Memory::default());
        for from in [0, 4, 8, 12] {
            parts.add(part("a", 1, from, "1234"));
            assert!(parts.output.len() <= 10);
        }
        assert!(matches!(end(&mut parts, "a", 16, "5"), Whole::TooLarge(_)));
        parts.add(part("a", 1, 0, "1234567890"));
        assert!(matches!(end(&mut parts, "a", 10, "1"), Whole::TooLarge(_)));
        parts.add(part("a", 1, 0, "123456789"));
        assert_eq!(end(&mut parts, "a", 9, "0"), Whole::Output("1234567890".into()));
    }

    #[test]
    fn what_all_streams_hold_is_bounded_and_the_rest_is_put_off_until_there_is_room() {
        let memory = Memory::default();
        let begin = |unit: &str, output_bytes: u64| {
            let mut parts = Parts::new(10, memory.clone());
            parts.add(v1::ResultPart { output_bytes, ..part(unit, 1, 0, "1234") });
            parts
        };
        // Room is kept for all of a result, where its worker says how large it becomes.
        let mut held: Vec<Parts> = ["a", "b", "c"].map(|unit| begin(unit, 10)).into();
        held.push(begin("d", 0));
        assert_eq!(memory.0.load(Ordering::Relaxed), 34);
        let mut late = begin("e", 7);
        assert_eq!(late.take_put_off(late.last), [v1::Attempt { unit_id: "e".into(), attempt: 1 }]);
        assert_eq!(late.take_put_off(late.last), [], "it is told once");
        late.add(part("e", 1, 4, "567"));
        assert_eq!(end(&mut late, "e", 7, "8"), Whole::PutOff, "what was on its way is no failure");
        assert!(matches!(end(&mut late, "f", 7, "8"), Whole::Incomplete(_)));

        assert_eq!(end(&mut held[0], "a", 4, "567890"), Whole::Output("1234567890".into()));
        late.add(v1::ResultPart { output_bytes: 7, ..part("e", 1, 0, "1234") });
        assert_eq!(end(&mut late, "e", 4, "567"), Whole::Output("1234567".into()), "begun again");
        held[3].add(part("d", 1, 4, "5678"));
        assert_eq!(memory.0.load(Ordering::Relaxed), 28);
        held.clear();
        assert_eq!(memory.0.load(Ordering::Relaxed), 0, "with their streams");
    }

    #[test]
    fn what_gets_no_further_gives_up_its_room() {
        let memory = Memory::default();
        let mut parts = Parts::new(10, memory.clone());
        parts.add(part("a", 1, 0, "1234"));
        assert_eq!(parts.take_put_off(parts.last + QUIET_MAX), []);
        let put_off = parts.take_put_off(parts.last + QUIET_MAX + Duration::from_millis(1));
        assert_eq!((put_off.len(), memory.0.load(Ordering::Relaxed)), (1, 0));
        assert_eq!(end(&mut parts, "a", 4, "5"), Whole::PutOff, "it came after all, and comes again");
    }
}
