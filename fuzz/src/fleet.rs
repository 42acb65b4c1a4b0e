//! A core with one worker and a job of each kind, for what was parsed to go into. Its own books are checked afterwards.

use flota_master::core::{Core, Input, Limits, Moment};
use flota_master::handle::{Hello, Report, StreamId};
use flota_master::submit::{NewJob, Principal};
use flota_proto::Timestamp;
use flota_proto::rest::SubmitJob;

const WORKER: &str = r#"{"worker_id":"w","language":"rust","status":"idle","protocol":1,"boot_id":"b",
    "slots":{"echo":2,"ai":2,"randomx":2},"kinds":["echo","ai.chat","randomx.hash","randomx.search"],"models":["m"],
    "capabilities":{"cores":4,"memory_mib":8000,"features":[],"hugepages":false,"gpus":[]}}"#;
/// With ids that a fuzzer finds in its corpus.
const JOBS: [&str; 4] = [
    r#"{"id":"0193e5f0-7c1a-7000-8000-000000000000","kind":"echo","payload":{"value":1}}"#,
    r#"{"id":"0193e5f0-7c1a-7000-8000-000000000001","kind":"ai.chat","payload":{"messages":[{"role":"user","content":"x"}]}}"#,
    r#"{"id":"0193e5f0-7c1a-7000-8000-000000000002","kind":"randomx.hash","payload":{"key":"00","inputs":["00","01","02"]}}"#,
    r#"{"id":"0193e5f0-7c1a-7000-8000-000000000003","kind":"randomx.search","payload":{"key":"00",
        "blob":"0000000000000000","nonce_offset":0,"nonce_start":0,"nonce_end":100,
        "target":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff","find":"all"}}"#,
];
const STREAM: StreamId = StreamId(1);

pub struct Fleet {
    core: Core,
    at: Moment,
}

impl Fleet {
    pub fn new() -> Self {
        let at = Moment { now: Timestamp(1_795_254_600_000), entropy: 7 };
        let mut fleet = Self { core: Core::new(Limits::default()), at };
        if let Ok(register) = serde_json::from_str(WORKER) {
            fleet.input(Input::Register(Box::new(register)));
        }
        if let Ok(worker) = "w".parse() {
            let hello = Hello { worker, boot_id: "b".into(), running: Vec::new(), finished: Vec::new() };
            fleet.input(Input::Open(hello, STREAM));
        }
        for job in JOBS {
            let job = serde_json::from_str::<SubmitJob>(job).ok();
            if let Some(Ok(job)) = job.map(|job| NewJob::from_submit(job, &Principal::local(), None)) {
                fleet.input(Input::Submit { job: Box::new(job), dependencies: Vec::new() });
            }
        }
        fleet
    }

    pub fn input(&mut self, input: Input) {
        let _ = self.core.handle(self.at, input);
        let _ = self.core.take_changes();
        self.core.forget_ended();
    }

    pub fn report(&mut self, report: Report) {
        self.input(Input::Report(STREAM, Box::new(report)));
    }

    /// Time passes, and the core's books must still agree.
    pub fn tick(&mut self) {
        self.at.now = self.at.now.after_ms(20_000);
        self.input(Input::Tick);
        if let Err(wrong) = self.core.audit() {
            panic!("the core's books don't agree: {wrong}");
        }
        let _ = self.core.workers_view();
        let _ = self.core.fleet_view(self.at.now);
    }
}
