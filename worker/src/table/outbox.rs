//! What of the table is due on the stream, and how it is put into messages: everything that is due goes into the next
//! message, so batches form by themselves while one is on its way, and nothing waits for a timer when idle.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use flota_proto::kinds::Found;
use flota_proto::{GRPC_MESSAGE_BYTES_MAX, UnitId, v1};

use super::{Held, Key, Phase, Report, Table};

/// At most four a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Text that comes faster is put together.
const DELTA_INTERVAL: Duration = Duration::from_millis(33);
const DELTA_BYTES_MAX: usize = 128 * 1024;
/// Room for the framing of the parts.
const MESSAGE_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX - 16 * 1024;
/// A larger report fits into no message.
pub(crate) const RESULT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64 * 1024;
/// An id, a number and their tags.
const ATTEMPT_BYTES: usize = 64;
/// Winning nonces told before the result.
const FOUND_MAX: usize = 256;
/// One of them as JSON.
const FOUND_BYTES: usize = 128;
const DONE_WAITING_MAX: usize = 256;

/// What an executor shows while it works, until it is due.
pub(super) struct Live {
    listed: bool,
    progress: Option<(f64, String)>,
    progress_from: Instant,
    /// Winning nonces that were not told yet.
    found: Vec<Found>,
    text: String,
    text_from: Instant,
    seq: u64,
}

impl Live {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            listed: false,
            progress: None,
            progress_from: now,
            found: Vec::new(),
            text: String::new(),
            text_from: now,
            seq: 0,
        }
    }

    fn take_delta(&mut self, (unit, attempt): Key) -> Option<v1::Delta> {
        if self.text.is_empty() {
            return None;
        }
        let rest = self.text.split_off(boundary(&self.text, DELTA_BYTES_MAX));
        let text = std::mem::replace(&mut self.text, rest);
        let seq = self.seq;
        self.seq += 1;
        Some(v1::Delta { unit_id: unit.to_string(), attempt, seq, text })
    }

    /// When the next part is due.
    fn due(&self) -> Option<Instant> {
        let progress = self.progress.is_some().then_some(self.progress_from);
        let text = (!self.text.is_empty()).then_some(self.text_from);
        progress.into_iter().chain(text).min()
    }
}

#[derive(Default)]
pub(super) struct Outbox {
    /// The stream that may take messages.
    stream: Option<u64>,
    /// Streams up to this one have ended.
    closed: u64,
    /// The stream ends once nothing is due.
    ending: bool,
    accepted: VecDeque<UnitId>,
    pub(super) returned: VecDeque<Key>,
    done: VecDeque<v1::Done>,
    heartbeat: Option<v1::Heartbeat>,
    live: Vec<UnitId>,
    /// The last text of attempts that have ended.
    deltas: VecDeque<v1::Delta>,
    pub(super) reports: VecDeque<UnitId>,
}

impl Outbox {
    pub(super) fn accept(&mut self, unit: UnitId, held: &mut HashMap<UnitId, Held>) {
        if let Some(held) = held.get_mut(&unit)
            && !std::mem::replace(&mut held.accept_due, true)
        {
            self.accepted.push_back(unit);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accepted.is_empty()
            && self.returned.is_empty()
            && self.done.is_empty()
            && self.heartbeat.is_none()
            && self.live.is_empty()
            && self.deltas.is_empty()
            && self.reports.is_empty()
    }
}

/// What a stream gets.
pub(crate) enum Take {
    Message(Box<v1::WorkerMessage>),
    /// Nothing is due before this time, or before something happens.
    Wait(Option<Instant>),
    /// This stream gets nothing more.
    End,
}

impl Table {
    pub(super) fn accept(&mut self, unit: UnitId) {
        self.out.accept(unit, &mut self.held);
    }

    /// A stream is open: everything that is not acknowledged is due again.
    pub(crate) fn open(&mut self, stream: u64) {
        self.out.stream = Some(stream);
        self.out.reports.clear();
        let units: Vec<UnitId> = self.held.keys().copied().collect();
        for unit in units {
            match self.held.get(&unit).map(|held| &held.phase) {
                Some(Phase::Finished(_)) => self.out.reports.push_back(unit),
                Some(Phase::Waiting(_) | Phase::Running(_)) => self.accept(unit),
                None => {}
            }
        }
    }

    /// The stream takes nothing more: its request ends, which frees the connection.
    pub(crate) fn close(&mut self, stream: u64) {
        self.out.closed = self.out.closed.max(stream);
        if self.out.stream == Some(stream) {
            self.out.stream = None;
        }
    }

    /// The stream ends as soon as nothing is due.
    pub(crate) fn end_stream(&mut self) {
        self.out.ending = true;
    }

    pub(crate) fn beat(&mut self, heartbeat: v1::Heartbeat) {
        self.out.heartbeat = Some(heartbeat);
    }

    /// A command was carried out, or could not be.
    pub(crate) fn done(&mut self, done: v1::Done) {
        if self.out.done.len() < DONE_WAITING_MAX {
            self.out.done.push_back(done);
        }
    }

    pub(crate) fn progress(&mut self, key: Key, fraction: f64, note: String) {
        if let Some(live) = self.live(key) {
            live.progress = Some((fraction, note));
        }
    }

    /// Goes out with the next progress.
    pub(crate) fn found(&mut self, key: Key, found: Vec<Found>) {
        if let Some(live) = self.live(key) {
            // More than these are told by the result.
            let room = FOUND_MAX.saturating_sub(live.found.len());
            live.found.extend(found.into_iter().take(room));
        }
    }

    pub(crate) fn delta(&mut self, key: Key, text: &str) {
        if let Some(live) = self.live(key) {
            live.text.push_str(text);
        }
    }

    /// What the attempt shows, listed for sending; `None` when it does not run.
    fn live(&mut self, (unit, attempt): Key) -> Option<&mut Live> {
        let held = self.held.get_mut(&unit).filter(|held| held.attempt == attempt)?;
        let Phase::Running(running) = &mut held.phase else { return None };
        if !std::mem::replace(&mut running.live.listed, true) {
            self.out.live.push(unit);
        }
        Some(&mut running.live)
    }

    /// An attempt ends: its last text goes out before its result.
    pub(super) fn flush_live(&mut self, unit: UnitId) {
        let Some(held) = self.held.get_mut(&unit) else { return };
        if let Phase::Running(running) = &mut held.phase {
            while let Some(delta) = running.live.take_delta((unit, held.attempt)) {
                self.out.deltas.push_back(delta);
            }
        }
    }

    /// The next message of `stream`.
    pub(crate) fn take(&mut self, stream: u64, now: Instant) -> Take {
        if stream <= self.out.closed {
            return Take::End;
        }
        if self.out.stream != Some(stream) {
            return Take::Wait(None);
        }
        let mut message = v1::WorkerMessage::default();
        let mut room = MESSAGE_BYTES_MAX;
        self.take_small(&mut message, &mut room);
        let next = self.take_live(&mut message, &mut room, now);
        self.take_deltas(&mut message, &mut room);
        self.take_reports(&mut message, &mut room);
        self.take_accepted(&mut message, &mut room);
        if message != v1::WorkerMessage::default() {
            Take::Message(Box::new(message))
        } else if self.out.ending {
            Take::End
        } else {
            Take::Wait(next)
        }
    }

    fn take_small(&mut self, message: &mut v1::WorkerMessage, room: &mut usize) {
        message.heartbeat = self.out.heartbeat.take();
        if let Some(beat) = &message.heartbeat {
            *room = room.saturating_sub(ATTEMPT_BYTES * (beat.running.len() + 4 * beat.warm_keys.len()));
        }
        while let Some(done) = self.out.done.front()
            && reserve(room, done.command_id.len() + done.outcome.len() + ATTEMPT_BYTES)
        {
            message.done.extend(self.out.done.pop_front());
        }
        while !self.out.returned.is_empty() && reserve(room, ATTEMPT_BYTES) {
            message
                .returned
                .extend(self.out.returned.pop_front().map(|(unit, attempt)| v1::Attempt::of(unit, attempt)));
        }
    }

    /// Progress and text that are due; says when the next are.
    fn take_live(&mut self, message: &mut v1::WorkerMessage, room: &mut usize, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for unit in std::mem::take(&mut self.out.live) {
            let Some(Held { attempt, phase: Phase::Running(running), .. }) = self.held.get_mut(&unit) else { continue };
            let (key, live) = ((unit, *attempt), &mut running.live);
            take_progress(live, key, message, room, now);
            if live.text_from <= now
                && reserve(room, live.text.len().min(DELTA_BYTES_MAX) + ATTEMPT_BYTES)
                && let Some(delta) = live.take_delta(key)
            {
                message.deltas.push(delta);
                live.text_from = now + DELTA_INTERVAL;
            }
            live.listed = false;
            if let Some(due) = live.due() {
                live.listed = true;
                self.out.live.push(unit);
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        next
    }

    fn take_deltas(&mut self, message: &mut v1::WorkerMessage, room: &mut usize) {
        while let Some(delta) = self.out.deltas.front()
            && reserve(room, delta.text.len() + ATTEMPT_BYTES)
        {
            message.deltas.extend(self.out.deltas.pop_front());
        }
    }

    fn take_reports(&mut self, message: &mut v1::WorkerMessage, room: &mut usize) {
        while let Some(unit) = self.out.reports.front() {
            if let Some(Held { phase: Phase::Finished(finished), .. }) = self.held.get(unit) {
                if !reserve(room, finished.report.size()) {
                    return;
                }
                match finished.report.clone() {
                    Report::Result(result) => message.results.push(result),
                    Report::Failure(failure) => message.failures.push(failure),
                }
            }
            self.out.reports.pop_front();
        }
    }

    /// Comes after the reports: what has one needs no acceptance any more.
    fn take_accepted(&mut self, message: &mut v1::WorkerMessage, room: &mut usize) {
        while let Some(unit) = self.out.accepted.front()
            && reserve(room, ATTEMPT_BYTES)
        {
            let started = match self.held.get_mut(unit) {
                Some(held) => {
                    held.accept_due = false;
                    match held.phase {
                        Phase::Waiting(_) => Some((held.attempt, false)),
                        Phase::Running(_) => Some((held.attempt, true)),
                        Phase::Finished(_) => None,
                    }
                }
                None => None,
            };
            if let Some((attempt, started)) = started {
                message.accepted.push(v1::Accepted { unit_id: unit.to_string(), attempt, started });
            }
            self.out.accepted.pop_front();
        }
    }
}

fn take_progress(
    live: &mut Live,
    (unit, attempt): Key,
    message: &mut v1::WorkerMessage,
    room: &mut usize,
    now: Instant,
) {
    let size = live.progress.as_ref().map_or(0, |(_, note)| note.len() + ATTEMPT_BYTES);
    let size = size + live.found.len() * FOUND_BYTES;
    if live.progress_from <= now
        && reserve(room, size)
        && let Some((fraction, note)) = live.progress.take()
    {
        let found = std::mem::take(&mut live.found);
        let checkpoint = if found.is_empty() { None } else { serde_json::to_vec(&found).ok().map(Into::into) };
        message.progress.push(v1::Progress { unit_id: unit.to_string(), attempt, fraction, note, checkpoint });
        live.progress_from = now + PROGRESS_INTERVAL;
    }
}

/// Takes `bytes` off the room that is left, if they fit.
fn reserve(room: &mut usize, bytes: usize) -> bool {
    match room.checked_sub(bytes) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    }
}

/// The last boundary of a character up to `most`.
fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
