//! Simple workers: no stream, no heartbeat; they answer one question at a time, once, and come back with a new id.

use std::collections::BTreeMap;

use flota_master::core::{Assignment, Input};
use flota_proto::mqtt::{Capabilities, Register};
use flota_proto::rest::JobError;
use flota_proto::{Kind, Timestamp, UnitId, WorkerId};
use rand::Rng;

use crate::trouble::Trouble;
use crate::worker::{Held, output};
use crate::world::{Message, World};

pub struct SimpleWorker {
    index: usize,
    boot: u64,
    pub id: WorkerId,
    pub registered: bool,
    asked: Option<(UnitId, u64, Timestamp)>,
}

impl SimpleWorker {
    pub fn new(index: usize) -> Self {
        Self { index, boot: 0, id: format!("s{index}-0").parse().expect("an id"), registered: false, asked: None }
    }

    pub fn die(&mut self) {
        let boot = self.boot + 1;
        let id = format!("s{}-{boot}", self.index).parse().expect("an id");
        *self = Self { boot, id, ..Self::new(self.index) };
    }

    fn register(&self) -> Register {
        Register {
            worker_id: self.id.clone(),
            language: "python".into(),
            status: "idle".into(),
            timestamp: Timestamp(0),
            protocol: None,
            boot_id: String::new(),
            version: String::new(),
            slots: BTreeMap::new(),
            prefetch: BTreeMap::new(),
            kinds: Vec::new(),
            models: Vec::new(),
            capabilities: Capabilities::default(),
            labels: BTreeMap::new(),
        }
    }
}

impl World {
    pub fn ask_simple(&mut self, assignment: &Assignment) {
        if assignment.kind != Kind::AiChat {
            self.fail(&format!("a simple worker was asked for {}", assignment.kind));
        }
        let done_at = self.now.after_ms(self.rng.random_range(100..9000));
        if let Some(worker) = self.simple.iter_mut().find(|worker| worker.id == assignment.worker) {
            worker.asked = Some((assignment.unit, assignment.attempt, done_at));
        }
    }

    pub fn live_simple(&mut self, index: usize) {
        if !self.simple[index].registered {
            let register = self.simple[index].register();
            self.simple[index].registered = true;
            self.input(Input::Register(Box::new(register)));
            return;
        }
        let Some((unit, attempt, done_at)) = self.simple[index].asked else { return };
        if done_at > self.now {
            return;
        }
        self.simple[index].asked = None;
        if self.trouble(Trouble::MessagesAreLost, 10) {
            return;
        }
        let held = Held { kind: Kind::AiChat, part: None, done_at, fails: false, finds: None, lies: false, texts: 0 };
        let broke = || JobError { code: "worker_error".into(), message: "it broke".into() };
        let answer = if self.trouble(Trouble::UnitsFail, 10) { Err(broke()) } else { Ok(output(unit, &held).into()) };
        let worker = self.simple[index].id.clone();
        let delay = self.delay();
        self.send(delay, Message::Said(Box::new(Input::SimpleAnswer { worker, unit, attempt, answer })));
    }
}
