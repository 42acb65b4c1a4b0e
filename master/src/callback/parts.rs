//! Results that are too large for one message: their parts are put together here, at most one a stream and none larger than may be
//! kept. What breaks off is begun again by its worker on the next stream.

use bytes::{Bytes, BytesMut};
use flota_proto::rest::JobError;
use flota_proto::v1;

/// A result that is on its way.
#[derive(Debug)]
pub(super) struct Parts {
    /// Whose it is, as the worker spells it.
    of: Option<(String, u64)>,
    output: BytesMut,
    bytes_max: usize,
    /// There was more of it than may be kept.
    too_large: bool,
}

/// What came of a result whose last piece is here.
#[derive(Debug, PartialEq)]
pub(super) enum Whole {
    /// All of it.
    Output(Bytes),
    /// More than may be kept.
    TooLarge(JobError),
    /// Pieces of it are missing.
    Incomplete(JobError),
}

impl Default for Parts {
    fn default() -> Self {
        Self::new(flota_proto::BODY_BYTES_MAX)
    }
}

impl Parts {
    /// Takes outputs of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { of: None, output: BytesMut::new(), bytes_max, too_large: false }
    }

    pub(super) fn add(&mut self, part: v1::ResultPart) {
        let v1::ResultPart { unit_id, attempt, output_from, output } = part;
        if output_from == 0 {
            self.clear();
            self.of = Some((unit_id, attempt));
        } else if !self.continues(&unit_id, attempt, output_from) {
            return self.clear();
        }
        self.too_large |= self.output.len() + output.len() > self.bytes_max;
        if self.too_large {
            self.output = BytesMut::new();
        } else {
            self.output.extend_from_slice(&output);
        }
    }

    /// The last piece, or the only one.
    pub(super) fn end(&mut self, unit_id: &str, attempt: u64, output_from: u64, last: Bytes) -> Whole {
        if output_from == 0 {
            return Whole::Output(last);
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

    /// Of one that is too large nothing is here to compare with.
    fn continues(&self, unit_id: &str, attempt: u64, from: u64) -> bool {
        let same = self.of.as_ref().is_some_and(|(unit, of)| unit == unit_id && *of == attempt);
        same && (self.too_large || self.output.len() as u64 == from)
    }

    fn clear(&mut self) {
        *self = Self::new(self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(unit: &str, attempt: u64, from: u64, output: &'static str) -> v1::ResultPart {
        v1::ResultPart { unit_id: unit.into(), attempt, output_from: from, output: output.as_bytes().into() }
    }

    fn end(parts: &mut Parts, unit: &str, from: u64, last: &'static str) -> Whole {
        parts.end(unit, 1, from, last.as_bytes().into())
    }

    #[test]
    fn parts_in_order_are_the_output_and_what_is_whole_passes_beside_them() {
        let mut parts = Parts::new(10);
        parts.add(part("a", 1, 0, "1234"));
        assert_eq!(end(&mut parts, "b", 0, "whole"), Whole::Output("whole".into()));
        parts.add(part("a", 1, 4, "567"));
        assert_eq!(end(&mut parts, "a", 7, "890"), Whole::Output("1234567890".into()));
        assert!(matches!(end(&mut parts, "a", 7, "890"), Whole::Incomplete(_)), "it is gone with its end");
    }

    #[test]
    fn what_does_not_continue_is_no_output() {
        let begin = || {
            let mut parts = Parts::new(10);
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
        let mut parts = Parts::new(10);
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
}
