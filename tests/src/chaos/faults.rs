//! What goes wrong: one fault after the other, each on something that no other fault has, each healed after a while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::Plan;
use super::fleet::Fleet;
use super::part::Part;

/// One thing that can go wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    MasterKilled,
    MasterStopped,
    WorkerKilled,
    WorkerStopped,
    WorkerCutOff,
    WorkerTerminated,
    BrokerKilled,
    BrokerStopped,
    DiskFull,
    ClockSet,
}

const TRIES: usize = 12;

/// Each as often as it stands here.
const CHOICE: [Fault; 20] = [
    Fault::MasterKilled,
    Fault::MasterKilled,
    Fault::MasterStopped,
    Fault::WorkerKilled,
    Fault::WorkerKilled,
    Fault::WorkerKilled,
    Fault::WorkerKilled,
    Fault::WorkerStopped,
    Fault::WorkerStopped,
    Fault::WorkerStopped,
    Fault::WorkerCutOff,
    Fault::WorkerCutOff,
    Fault::WorkerCutOff,
    Fault::WorkerCutOff,
    Fault::WorkerTerminated,
    Fault::BrokerKilled,
    Fault::BrokerKilled,
    Fault::BrokerStopped,
    Fault::DiskFull,
    Fault::ClockSet,
];

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::MasterKilled => "master killed (SIGKILL) and started again",
            Self::MasterStopped => "master stopped (SIGSTOP) for a while",
            Self::WorkerKilled => "worker killed (SIGKILL) and started again",
            Self::WorkerStopped => "worker stopped (SIGSTOP) for a while",
            Self::WorkerCutOff => "worker's network cut and healed",
            Self::WorkerTerminated => "worker told to end (SIGTERM) and started again",
            Self::BrokerKilled => "broker killed, back with nothing remembered",
            Self::BrokerStopped => "broker stopped (SIGSTOP) for a while",
            Self::DiskFull => "disk of the store full for a while",
            Self::ClockSet => "master's clock set wrong and right again",
        }
    }

    /// The longest that it lasts.
    fn most(self) -> Duration {
        Duration::from_millis(match self {
            Self::MasterKilled | Self::BrokerKilled => 4_000,
            Self::MasterStopped | Self::BrokerStopped => 7_000,
            Self::DiskFull => 6_000,
            Self::ClockSet => 10_000,
            Self::WorkerTerminated | Self::WorkerKilled => 8_000,
            Self::WorkerStopped | Self::WorkerCutOff => 22_000,
        })
    }
}

/// Makes faults.
pub struct Faults {
    fleet: Arc<Fleet>,
    rng: StdRng,
    plan: Plan,
    made: BTreeMap<&'static str, u64>,
    running: JoinSet<()>,
}

impl Faults {
    pub fn new(fleet: Arc<Fleet>, rng: StdRng, plan: Plan) -> Self {
        Self { fleet, rng, plan, made: BTreeMap::new(), running: JoinSet::new() }
    }

    /// Goes on for as long as planned, then waits until the last fault is healed. Gives how often each was made.
    pub async fn run(mut self) -> BTreeMap<&'static str, u64> {
        let end = clock::instant() + self.plan.length;
        while clock::instant() < end {
            let pause = self.plan.fault_every.mul_f64(self.rng.random_range(0.2..1.8));
            tokio::time::sleep(pause).await;
            // What is to be hit may be down already: then something else is.
            for _ in 0..TRIES {
                let fault = CHOICE[self.rng.random_range(0..CHOICE.len())];
                if self.begin(fault) {
                    *self.made.entry(fault.word()).or_default() += 1;
                    break;
                }
            }
        }
        while self.running.join_next().await.is_some() {}
        self.made
    }

    /// Makes a fault where what it concerns is free. Answers whether it did.
    fn begin(&mut self, fault: Fault) -> bool {
        let worker = self.rng.random_range(0..self.fleet.workers.len());
        let length = fault.most().min(self.plan.fault_max).mul_f64(self.rng.random_range(0.05..1.0));
        let fleet = self.fleet.clone();
        let part = match fault {
            Fault::MasterKilled | Fault::MasterStopped | Fault::DiskFull | Fault::ClockSet => &fleet.master,
            Fault::BrokerKilled | Fault::BrokerStopped => &fleet.broker,
            Fault::WorkerKilled | Fault::WorkerStopped | Fault::WorkerCutOff | Fault::WorkerTerminated => {
                &fleet.workers[worker]
            }
        };
        let part = part.clone();
        let possible = match fault {
            Fault::DiskFull => fleet.disk.is_some(),
            Fault::ClockSet => fleet.clock.is_some(),
            Fault::WorkerCutOff => fleet.net.is_some(),
            _ => true,
        };
        if !possible || !part.take() {
            return false;
        }
        let seconds = self.rng.random_range(-90..90);
        self.running.spawn(async move {
            make(&fleet, fault, &part, worker, length, seconds).await;
            part.give_back();
        });
        true
    }
}

async fn make(fleet: &Fleet, fault: Fault, part: &Part, worker: usize, length: Duration, seconds: i64) {
    match fault {
        Fault::MasterKilled | Fault::WorkerKilled | Fault::BrokerKilled => {
            part.kill();
            tokio::time::sleep(length).await;
            part.start();
        }
        Fault::MasterStopped | Fault::WorkerStopped | Fault::BrokerStopped => {
            part.signal("STOP");
            tokio::time::sleep(length).await;
            part.signal("CONT");
        }
        Fault::WorkerTerminated => {
            part.signal("TERM");
            let end = clock::instant() + Duration::from_secs(30);
            while part.runs() && clock::instant() < end {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            part.kill();
            part.start();
        }
        Fault::WorkerCutOff => {
            if let Some(net) = &fleet.net {
                net.cut(worker);
                tokio::time::sleep(length).await;
                net.heal(worker);
            }
        }
        Fault::DiskFull => {
            if let Some(disk) = &fleet.disk {
                disk.fill();
                tokio::time::sleep(length).await;
                disk.free();
            }
        }
        Fault::ClockSet => {
            set_clock(&fleet.clock, seconds);
            tokio::time::sleep(length).await;
            set_clock(&fleet.clock, 0);
        }
    }
}

fn set_clock(file: &Option<PathBuf>, seconds: i64) {
    if let Some(file) = file {
        // Written aside: a process that reads in between would see nothing.
        let new = file.with_extension("new");
        if std::fs::write(&new, format!("{seconds:+}")).is_ok() {
            let _ = std::fs::rename(&new, file);
        }
    }
}
