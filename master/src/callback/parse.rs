//! From a worker's messages to a [`Report`] with parsed ids and bounded texts. What is malformed is left out and counted:
//! one bad item is no reason to lose the others.

use flota_proto::kinds::{Found, RANDOMX_KEY_BYTES_MAX};
use flota_proto::mqtt::Load;
use flota_proto::{UnitId, rest, v1};

use super::parts::{Parts, Whole};
use crate::core::DATASET_DIGEST_BYTES;
use crate::handle::{Heartbeat, Report, UnitFailure, UnitResult, UnitText};

/// How much of what has arrived goes into one report.
const REPORT_ITEMS_MAX: usize = 1000;
/// The same, of outputs.
const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Texts for people beyond this are cut.
const TEXT_BYTES_MAX: usize = 4096;
/// Words for programs beyond this are cut.
const WORD_BYTES_MAX: usize = 128;
/// A machine is warm for few keys.
const WARM_KEYS_MAX: usize = 64;
/// It computes few datasets.
const COMPUTED_MAX: usize = 8;

/// Collects messages into one report.
#[derive(Debug, Default)]
pub(super) struct Collector {
    report: Report,
    items: usize,
    bytes: usize,
    /// What was left out, and why the last of it was.
    pub(super) malformed: Option<(u64, String)>,
    /// Results and failures of units that can't be: acknowledged as stale, or they would be sent for ever.
    pub(super) unknown: Vec<v1::Ack>,
}

impl Collector {
    /// Whether it holds enough for one report: one worker must not hold up the loop.
    pub(super) fn is_full(&self) -> bool {
        self.items >= REPORT_ITEMS_MAX || self.bytes >= REPORT_BYTES_MAX
    }

    /// Whether there is nothing to report.
    pub(super) fn is_empty(&self) -> bool {
        self.items == 0
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Adds what `message` says, with `parts` of a result that came before it; a second `hello` is malformed.
    pub(super) fn add(&mut self, message: v1::WorkerMessage, parts: &mut Parts) {
        let v1::WorkerMessage {
            hello,
            accepted,
            heartbeat,
            progress,
            deltas,
            results,
            failures,
            done,
            returned,
            result_parts,
        } = message;
        if hello.is_some() {
            self.skip("hello after the first message");
        }
        for v1::Accepted { unit_id, attempt, started } in accepted {
            self.with(&unit_id, |report, unit| report.accepted.push((unit, attempt, started)));
        }
        if let Some(heartbeat) = heartbeat {
            self.heartbeat(heartbeat);
        }
        for progress in progress {
            self.progress(progress);
        }
        for v1::Delta { unit_id, attempt, seq, text, again } in deltas {
            self.with(&unit_id, |report, unit| report.deltas.push(UnitText { unit, attempt, seq, again, text }));
        }
        for part in result_parts {
            self.bytes += part.output.len();
            parts.add(part);
        }
        for result in results {
            self.bytes += result.output.len();
            self.result(result, parts);
        }
        for failure in failures {
            self.failure(failure);
        }
        for v1::Done { command_id, outcome } in done {
            self.items += 1;
            self.report.done.push((cut(command_id, WORD_BYTES_MAX), cut(outcome, TEXT_BYTES_MAX)));
        }
        for v1::Attempt { unit_id, attempt } in returned {
            self.with(&unit_id, |report, unit| report.returned.push((unit, attempt)));
        }
    }

    /// Parses `(unit, attempt)` pairs.
    pub(super) fn attempts(&mut self, attempts: Vec<v1::Attempt>) -> Vec<(UnitId, u64)> {
        let mut parsed = Vec::with_capacity(attempts.len());
        for v1::Attempt { unit_id, attempt } in attempts {
            match unit_id.parse() {
                Ok(unit) => parsed.push((unit, attempt)),
                Err(_) => self.skip("unit_id"),
            }
        }
        parsed
    }

    fn with(&mut self, unit_id: &str, take: impl FnOnce(&mut Report, UnitId)) {
        match unit_id.parse() {
            Ok(unit) => {
                self.items += 1;
                take(&mut self.report, unit);
            }
            Err(_) => self.skip("unit_id"),
        }
    }

    fn look_at_id(&mut self, unit_id: &str, attempt: u64) {
        if unit_id.parse::<UnitId>().is_err() && unit_id.len() <= WORD_BYTES_MAX {
            self.bytes += WORD_BYTES_MAX;
            let outcome = v1::Outcome::Stale.into();
            self.unknown.push(v1::Ack { unit_id: unit_id.to_owned(), attempt, outcome });
        }
    }

    fn skip(&mut self, what: &str) {
        let (count, last) = self.malformed.get_or_insert_default();
        *count += 1;
        what.clone_into(last);
    }

    /// The newest heartbeat says all; but each extends leases of its own.
    fn heartbeat(&mut self, heartbeat: v1::Heartbeat) {
        let v1::Heartbeat { running, load, hashrate, mut warm_keys, computed } = heartbeat;
        let mut running = self.attempts(running);
        self.items += running.len() + 1;
        warm_keys.truncate(WARM_KEYS_MAX);
        warm_keys.retain(|key| key.len() <= WORD_BYTES_MAX && key.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(earlier) = self.report.heartbeat.take() {
            running.extend(earlier.running);
            running.sort_unstable();
            running.dedup();
        }
        let computed = computed.into_iter().filter_map(dataset).take(COMPUTED_MAX).collect();
        let load = load.map(|v1::Load { cpu, memory }| Load { cpu: share(cpu), memory: share(memory) });
        let hashrate = if hashrate.is_finite() { hashrate.max(0.0) } else { 0.0 };
        let load = load.unwrap_or_default();
        self.report.heartbeat = Some(Heartbeat { running, load, hashrate, warm_keys, computed });
    }

    fn progress(&mut self, progress: v1::Progress) {
        let v1::Progress { unit_id, attempt, fraction, note, checkpoint } = progress;
        let (fraction, note) = (share(fraction), cut(note, TEXT_BYTES_MAX));
        if let Some(checkpoint) = checkpoint {
            match serde_json::from_slice::<Vec<Found>>(&checkpoint) {
                Ok(found) => self.with(&unit_id, |report, unit| report.found.push((unit, attempt, found))),
                Err(_) => self.skip("checkpoint"),
            }
        }
        self.with(&unit_id, |report, unit| report.progress.push((unit, attempt, fraction, note)));
    }

    fn result(&mut self, result: v1::Result, parts: &mut Parts) {
        let v1::Result { unit_id, attempt, output, elapsed_ms, hashes, output_from } = result;
        self.look_at_id(&unit_id, attempt);
        let whole = parts.end(&unit_id, attempt, output_from, output);
        self.with(&unit_id, |report, unit| match whole {
            Whole::PutOff => {}
            Whole::Output(output) => report.results.push(UnitResult { unit, attempt, output, elapsed_ms, hashes }),
            Whole::TooLarge(error) => {
                report.failures.push(UnitFailure {
                    unit,
                    attempt,
                    error,
                    retryable: false,
                    retry_after_ms: 0,
                    unasked: false,
                });
            }
            Whole::Incomplete(error) => {
                report.failures.push(UnitFailure {
                    unit,
                    attempt,
                    error,
                    retryable: true,
                    retry_after_ms: 0,
                    unasked: false,
                });
            }
        });
    }

    fn failure(&mut self, failure: v1::Failure) {
        let v1::Failure { unit_id, attempt, code, message, retryable, retry_after_ms, unasked } = failure;
        self.look_at_id(&unit_id, attempt);
        let code = if code.is_empty() { "unknown".to_owned() } else { cut(code, WORD_BYTES_MAX) };
        let error = rest::JobError { code, message: cut(message, TEXT_BYTES_MAX) };
        self.with(&unit_id, |report, unit| {
            report.failures.push(UnitFailure { unit, attempt, error, retryable, retry_after_ms, unasked });
        });
    }
}

/// A dataset's key and digest; `None` where they can't be those.
fn dataset(said: v1::DatasetDigest) -> Option<(Vec<u8>, [u8; DATASET_DIGEST_BYTES])> {
    let key = said.key.to_vec();
    Some((key, (*said.digest).try_into().ok()?)).filter(|(key, _)| key.len() <= RANDOMX_KEY_BYTES_MAX)
}

/// 0 to 1, whatever was sent.
fn share(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use flota_proto::JobId;

    use super::*;

    fn unit() -> UnitId {
        UnitId { job: JobId::generate(), index: 0 }
    }

    #[test]
    fn a_malformed_item_is_left_out_and_the_others_stay() {
        let good = unit();
        let item = |unit_id: &str| v1::Accepted { unit_id: unit_id.into(), attempt: 3, started: true };
        let mut collector = Collector::default();
        collector.add(
            v1::WorkerMessage {
                accepted: vec![item("nonsense"), item(&good.to_string()), item("")],
                ..Default::default()
            },
            &mut Parts::default(),
        );
        assert_eq!(collector.malformed, Some((2, "unit_id".into())));
        assert_eq!(collector.into_report().accepted, [(good, 3, true)]);
    }

    #[test]
    fn numbers_from_outside_are_bounded() {
        let unit = unit();
        let (mut collector, mut parts) = (Collector::default(), Parts::default());
        for fraction in [f64::NAN, f64::INFINITY, -3.0, 7.0, 0.5] {
            let progress = v1::Progress { unit_id: unit.to_string(), attempt: 1, fraction, ..Default::default() };
            collector.add(v1::WorkerMessage { progress: vec![progress], ..Default::default() }, &mut parts);
        }
        collector.add(
            v1::WorkerMessage {
                heartbeat: Some(v1::Heartbeat {
                    hashrate: f64::NAN,
                    warm_keys: vec!["zz".into(), "ab".into()],
                    computed: [(1, 32), (1, 31), (61, 32), (60, 32)]
                        .map(|(key, digest)| v1::DatasetDigest {
                            key: vec![7; key].into(),
                            digest: vec![9; digest].into(),
                        })
                        .into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            &mut parts,
        );
        let report = collector.into_report();
        let fractions: Vec<f64> = report.progress.iter().map(|progress| progress.2).collect();
        assert_eq!(fractions, [0.0, 0.0, 0.0, 1.0, 0.5]);
        let heartbeat = report.heartbeat.expect("it was sent");
        assert_eq!((heartbeat.hashrate, heartbeat.warm_keys), (0.0, vec!["ab".to_owned()]));
        assert_eq!(heartbeat.computed, [(vec![7], [9; 32]), (vec![7; 60], [9; 32])]);
    }

    #[test]
    fn two_heartbeats_in_one_report_extend_the_leases_of_both() {
        let (a, b) = (unit(), unit());
        let mut collector = Collector::default();
        for unit in [a, b] {
            let heartbeat = v1::Heartbeat { running: vec![v1::Attempt::of(unit, 1)], ..Default::default() };
            collector
                .add(v1::WorkerMessage { heartbeat: Some(heartbeat), ..Default::default() }, &mut Parts::default());
        }
        let mut running = collector.into_report().heartbeat.expect("sent").running;
        running.sort_unstable();
        let mut expected = vec![(a, 1), (b, 1)];
        expected.sort_unstable();
        assert_eq!(running, expected);
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let text = cut("ä".repeat(5000), TEXT_BYTES_MAX + 1);
        assert_eq!(text.len(), TEXT_BYTES_MAX);
    }
}
