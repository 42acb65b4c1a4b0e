//! The wall clock was set. What has a date (a deadline, a delayed start, a day's budget) keeps it; what lasts a span of time (a lease, a
//! timeout, a wait, a quarantine) lasts as long as before.

use flota_proto::Timestamp;

use super::fleet::WorkerIdx;
use super::job::{Seq, UnitState};
use super::{Core, Moment, Timer};

fn moved(at: Timestamp, by_ms: i64) -> Timestamp {
    Timestamp(at.0.saturating_add_signed(by_ms))
}

impl Core {
    /// The clock went forward by so much more than time has passed, or back.
    pub(super) fn clock_set(&mut self, at: Moment, by_ms: i64) {
        for seq in &self.active {
            let Some(job) = self.jobs.get_mut(seq) else { continue };
            job.progress_at = Timestamp(0);
            for unit in &mut job.units {
                if let UnitState::Held(hold) = &mut unit.state {
                    hold.until = moved(hold.until, by_ms);
                    hold.timeout_at = hold.timeout_at.map(|timeout| moved(timeout, by_ms));
                }
            }
        }
        for (due, timer) in std::mem::take(&mut self.timers) {
            let due = match timer {
                Timer::Start(_) | Timer::Deadline(_) => due,
                Timer::Worker(_) | Timer::Unserved(_) => moved(due, by_ms),
                Timer::Unit(seq, index) => {
                    self.move_wait(seq, index, due, by_ms);
                    moved(due, by_ms)
                }
            };
            self.timers.insert((due, timer));
        }
        let workers: Vec<_> = self.fleet.iter().map(|(idx, _)| idx).collect();
        for idx in workers {
            self.move_worker(idx, by_ms);
        }
        self.fleet.look_again();
        self.meter.clock_set(at.now, by_ms);
    }

    /// A unit has one wait, and may have timers of holds that are over.
    fn move_wait(&mut self, seq: Seq, index: u32, due: Timestamp, by_ms: i64) {
        let Some(unit) = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(index)) else { return };
        if let UnitState::Scheduled { run_at } = &mut unit.state
            && *run_at == due
        {
            *run_at = moved(*run_at, by_ms);
            // Forward it would be tried sooner after a restart, which does no harm; a million rows do, where the disk is why the
            // clock has run away.
            if by_ms < 0 {
                unit.dirty = true;
                self.mark(seq);
            }
        }
    }

    fn move_worker(&mut self, idx: WorkerIdx, by_ms: i64) {
        let quarantined = self.fleet.update(idx, |worker| {
            worker.last_seen_at = moved(worker.last_seen_at, by_ms);
            worker.muted_until = worker.muted_until.map(|until| moved(until, by_ms));
            if let Some(left) = &mut worker.left {
                left.until = moved(left.until, by_ms);
            }
            if let Some(owed) = &mut worker.owes {
                owed.until = moved(owed.until, by_ms);
            }
            let until = worker.standing.quarantine.as_mut().and_then(|quarantine| quarantine.until.as_mut());
            until.map(|until| *until = moved(*until, by_ms)).is_some()
        });
        if quarantined == Some(true) {
            self.dirty_workers.insert(idx);
        }
    }
}
