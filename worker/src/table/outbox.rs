//! What of the table is due on the stream, and how it is put into messages: everything that is due goes into the next
//! message, so batches form by themselves while one is on its way, and nothing waits for a timer when idle.

use std::collections::{BTreeSet, HashMap, VecDeque};
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
/// A larger output fits into no message: it goes in parts.
pub(crate) const OUTPUT_IN_MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64 * 1024;
/// Other things find room beside a part.
const PART_BYTES: usize = 512 * 1024;
/// Text of a running attempt that is sent again on a new stream; what is longer has arrived, as far as anyone can tell.
const SENT_TEXT_BYTES_MAX: usize = 64 * 1024;
/// An id, a number and their tags.
const ATTEMPT_BYTES: usize = 64;
/// Winning nonces told before the result.
const FOUND_MAX: usize = 256;
/// One of them as JSON.
const FOUND_BYTES: usize = 128;
const DONE_WAITING_MAX: usize = 256;
/// When a large result is sent again for which the master had no room.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What an executor shows while it works, until it is due.
pub(super) struct Live {
    /// Under which time it stands in [`Outbox::live`].
    listed: Option<Instant>,
    progress: Option<(f64, String)>,
    progress_from: Instant,
    /// Winning nonces that were not told yet.
    found: Vec<Found>,
    text: String,
    text_from: Instant,
    seq: u64,
    /// The last text that was sent: whether it arrived is not known.
    sent: VecDeque<v1::Delta>,
    sent_bytes: usize,
    /// How much of it is due again, from the back.
    again: usize,
}

impl Live {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            listed: None,
            progress: None,
            progress_from: now,
            found: Vec::new(),
            text: String::new(),
            text_from: now,
            seq: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            again: 0,
        }
    }

    /// On a new stream the last text is due again; who has it leaves it out.
    fn send_again(&mut self) {
        self.again = self.sent.len();
        // It is due at once: since it was taken, which was an interval before.
        if self.again > 0 {
            self.text_from = self.text_from.checked_sub(DELTA_INTERVAL).unwrap_or(self.text_from);
        }
    }

    /// The size of the next piece of text.
    fn delta_bytes(&self) -> usize {
        let again = self.sent.len().checked_sub(self.again).and_then(|at| self.sent.get(at));
        again.map_or(self.text.len().min(DELTA_BYTES_MAX), |delta| delta.text.len())
    }

    fn take_delta(&mut self, key: Key) -> Option<v1::Delta> {
        if self.again > 0
            && let Some(delta) = self.sent.get(self.sent.len() - self.again)
        {
            self.again -= 1;
            return Some(v1::Delta { again: true, ..delta.clone() });
        }
        let delta = self.take_new(key)?;
        self.sent_bytes += delta.text.len();
        self.sent.push_back(delta.clone());
        while self.sent_bytes > SENT_TEXT_BYTES_MAX
            && let Some(oldest) = self.sent.pop_front()
        {
            self.sent_bytes -= oldest.text.len();
        }
        Some(delta)
    }

    fn take_new(&mut self, (unit, attempt): Key) -> Option<v1::Delta> {
        if self.text.is_empty() {
            return None;
        }
        let rest = self.text.split_off(boundary(&self.text, DELTA_BYTES_MAX));
        let text = std::mem::replace(&mut self.text, rest);
        let seq = self.seq;
        self.seq += 1;
        Some(v1::Delta { unit_id: unit.to_string(), attempt, seq, text, again: false })
    }

    /// When the next part is due.
    fn due(&self) -> Option<Instant> {
        let progress = self.progress.is_some().then_some(self.progress_from);
        let text = (self.again > 0 || !self.text.is_empty()).then_some(self.text_from);
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
    /// What executors show, by the time when it is due; only what its [`Live`] says is listed counts.
    live: BTreeSet<(Instant, UnitId)>,
    /// The last text of attempts that have ended.
    deltas: VecDeque<v1::Delta>,
    pub(super) reports: VecDeque<UnitId>,
    /// How much of a large result has been sent as parts.
    sent: Option<(Key, usize)>,
    /// Reports for which the master had no room, and when they are due again.
    put_off: VecDeque<UnitId>,
    put_off_until: Option<Instant>,
}

impl Outbox {
    pub(super) fn accept(&mut self, unit: UnitId, held: &mut HashMap<UnitId, Held>) {
        if let Some(held) = held.get_mut(&unit)
            && !std::mem::replace(&mut held.accept_due, true)
        {
            self.accepted.push_back(unit);
        }
    }

    /// Lists what an attempt shows under the time when it is due.
    fn list(&mut self, unit: UnitId, live: &mut Live) {
        let due = live.due();
        if due == live.listed {
            return;
        }
        if let Some(at) = live.listed.take() {
            self.live.remove(&(at, unit));
        }
        self.live.extend(due.map(|at| (at, unit)));
        live.listed = due;
    }

    /// A large result is sent again from its beginning, after a while.
    fn put_off(&mut self, key: Key, now: Instant) {
        self.sent.take_if(|(of, _)| *of == key);
        self.reports.retain(|unit| *unit != key.0);
        if !self.put_off.contains(&key.0) {
            self.put_off.push_back(key.0);
        }
        self.put_off_until.get_or_insert(now + AGAIN_AFTER);
    }

    /// What was put off is due again when its time has come.
    fn take_up(&mut self, now: Instant) {
        if self.put_off_until.take_if(|until| *until <= now).is_some() {
            self.reports.append(&mut self.put_off);
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
            && self.put_off.is_empty()
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
        self.out.put_off.clear();
        self.out.put_off_until = None;
        self.out.sent = None;
        let units: Vec<UnitId> = self.held.keys().copied().collect();
        for unit in units {
            match self.held.get_mut(&unit).map(|held| &mut held.phase) {
                Some(Phase::Finished(_)) => self.out.reports.push_back(unit),
                Some(Phase::Running(running)) => {
                    running.live.send_again();
                    self.out.list(unit, &mut running.live);
                    self.accept(unit);
                }
                Some(Phase::Waiting(_)) => self.accept(unit),
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

    /// An attempt got further. Says, as [`Table::delta`] does, whether whoever waits must look again.
    pub(crate) fn progress(&mut self, key: Key, fraction: f64, note: String) -> bool {
        self.show(key, |live| live.progress = Some((fraction, note)))
    }

    /// Goes out with the next progress.
    pub(crate) fn found(&mut self, key: Key, found: Vec<Found>) -> bool {
        self.show(key, |live| {
            // More than these are told by the result.
            let room = FOUND_MAX.saturating_sub(live.found.len());
            live.found.extend(found.into_iter().take(room));
        })
    }

    /// The next piece of an answer's text. Says whether something is due sooner than it was before: whoever waits for that
    /// must look again.
    pub(crate) fn delta(&mut self, key: Key, text: &str) -> bool {
        self.show(key, |live| live.text.push_str(text))
    }

    /// Changes what an attempt shows and lists it for sending, if it runs.
    fn show(&mut self, (unit, attempt): Key, change: impl FnOnce(&mut Live)) -> bool {
        let held = self.held.get_mut(&unit).filter(|held| held.attempt == attempt);
        let Some(Held { phase: Phase::Running(running), .. }) = held else { return false };
        change(&mut running.live);
        let before = self.out.live.first().map(|(at, _)| *at);
        self.out.list(unit, &mut running.live);
        self.out.live.first().map(|(at, _)| *at) != before
    }

    /// An attempt ends: its last text goes out before its result.
    pub(super) fn flush_live(&mut self, unit: UnitId) {
        let Some(held) = self.held.get_mut(&unit) else { return };
        if let Phase::Running(running) = &mut held.phase {
            if let Some(at) = running.live.listed.take() {
                self.out.live.remove(&(at, unit));
            }
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
        self.out.take_up(now);
        let mut message = v1::WorkerMessage::default();
        let mut room = MESSAGE_BYTES_MAX;
        self.take_small(&mut message, &mut room);
        let next = self.take_live(&mut message, &mut room, now);
        self.take_deltas(&mut message, &mut room);
        self.take_reports(&mut message, &mut room);
        self.take_accepted(&mut message, &mut room);
        if message != v1::WorkerMessage::default() {
            Take::Message(Box::new(message))
        } else if self.out.ending && self.out.put_off.is_empty() {
            Take::End
        } else {
            Take::Wait(next.into_iter().chain(self.out.put_off_until).min())
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
        let mut due = Vec::new();
        while let Some((at, unit)) = self.out.live.first().copied().filter(|(at, _)| *at <= now) {
            self.out.live.pop_first();
            due.push((at, unit));
        }
        for (at, unit) in due {
            let Some(Held { attempt, phase: Phase::Running(running), .. }) = self.held.get_mut(&unit) else { continue };
            let (key, live) = ((unit, *attempt), &mut running.live);
            // Another attempt may have been listed under another time.
            if live.listed != Some(at) {
                continue;
            }
            live.listed = None;
            take_progress(live, key, message, room, now);
            while (live.again > 0 || live.text_from <= now)
                && reserve(room, live.delta_bytes() + ATTEMPT_BYTES)
                && let Some(delta) = live.take_delta(key)
            {
                if !delta.again {
                    live.text_from = now + DELTA_INTERVAL;
                }
                message.deltas.push(delta);
            }
            self.out.list(unit, live);
        }
        self.out.live.first().map(|(at, _)| *at)
    }

    /// Units whose reports are still to be sent on the stream that is open.
    pub(super) fn unsent(&self) -> BTreeSet<UnitId> {
        let open = self.out.stream.is_some();
        self.out.reports.iter().chain(&self.out.put_off).filter(|_| open).copied().collect()
    }

    /// The master has no room for a large result now: it is kept and sent again.
    pub(crate) fn send_again(&mut self, (unit, attempt): Key, now: Instant) {
        let held = self.held.get(&unit).filter(|held| held.attempt == attempt);
        if held.is_some_and(|held| matches!(held.phase, Phase::Finished(_))) {
            self.out.put_off((unit, attempt), now);
        }
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
            if let Some(Held { attempt, phase: Phase::Finished(finished), .. }) = self.held.get(unit) {
                let key = (*unit, *attempt);
                match &finished.report {
                    Report::Result(result) if result.output.len() > OUTPUT_IN_MESSAGE_BYTES_MAX => {
                        if !take_part(&mut self.out.sent, key, result, message, room) {
                            return;
                        }
                    }
                    report if !reserve(room, report.size()) => return,
                    Report::Result(result) => message.results.push(result.clone()),
                    Report::Failure(failure) => message.failures.push(failure.clone()),
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

/// The next part of a large result. Says whether that was the last one.
fn take_part(
    sent: &mut Option<(Key, usize)>,
    key: Key,
    result: &v1::Result,
    message: &mut v1::WorkerMessage,
    room: &mut usize,
) -> bool {
    let from = sent.filter(|(of, _)| *of == key).map_or(0, |(_, from)| from);
    let rest = result.output.slice(from.min(result.output.len())..);
    // One part, or one end of parts, a message: so their order is never in doubt.
    let part = rest.len().min(PART_BYTES);
    let alone = message.result_parts.is_empty() && message.results.iter().all(|result| result.output_from == 0);
    if !(alone && reserve(room, part + ATTEMPT_BYTES)) {
        return false;
    }
    let output_from = from as u64;
    if part < rest.len() {
        let (unit_id, attempt, output) = (result.unit_id.clone(), result.attempt, rest.slice(..part));
        let output_bytes = result.output.len() as u64;
        message.result_parts.push(v1::ResultPart { unit_id, attempt, output_from, output, output_bytes });
        *sent = Some((key, from + part));
        return false;
    }
    message.results.push(v1::Result { output: rest, output_from, ..result.clone() });
    *sent = None;
    true
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
