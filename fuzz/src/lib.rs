//! One function a place where bytes come from outside. Each takes any bytes and must come back: a panic is a finding. libFuzzer
//! drives them (`scripts/fuzz.sh`), and so does an ordinary test over the committed corpus and mutations of it.

mod fleet;

use std::ffi::OsString;

use flota_common::config::{Settings, Sources};
use flota_master::core::Input;
use flota_master::submit::{NewJob, Principal};
use flota_proto::mqtt::{Control, JobsStatus, MasterStatus};
use flota_proto::rest::{PatchJob, SubmitJob};
use flota_proto::socket::{JobCancel, JobSubscribe, SessionResume, UserQuery};
use flota_proto::topics::Topics;
use flota_proto::{JobId, UnitId, WorkerId, kinds, v1};
use prost::Message;

use fleet::Fleet;

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] =
    [("mqtt", mqtt), ("topics", topics), ("grpc", grpc), ("rest", rest), ("gemini", gemini), ("config", config)];

/// What the master and a worker hear by MQTT: the first line is the topic, below `flota/`, the rest the payload. What the master
/// understands goes into a core with jobs.
pub fn mqtt(data: &[u8]) {
    let (topic, payload) = first_line(data);
    let Ok(topics) = Topics::new("flota") else { return };
    let mut fleet = Fleet::new();
    if let Some(input) = flota_master::mqtt::understood(&topics, &format!("flota/{topic}"), payload) {
        fleet.input(input);
    }
    fleet.tick();
    flota_worker::hostile::tasks(payload);
    let _ = serde_json::from_slice::<Control>(payload);
    let _ = serde_json::from_slice::<MasterStatus>(payload);
    let _ = serde_json::from_slice::<JobsStatus>(payload);
}

/// Topics and the ids in them.
pub fn topics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(topics) = Topics::new(&text)
        && let Ok(worker) = text.parse::<WorkerId>()
    {
        for topic in [topics.tasks(&worker), topics.worker_state(&worker), topics.worker_control(&worker)] {
            assert!(!topic.contains(['+', '#']), "a worker's topic must be no filter: {topic}");
        }
    }
    if let Ok(unit) = text.parse::<UnitId>() {
        assert_eq!(unit.to_string().parse::<UnitId>().ok(), Some(unit), "an id reads back as it is written");
    }
    let _ = text.parse::<JobId>();
    let (root, rest) = first_line(data);
    if let Ok(topics) = Topics::new(&root) {
        let _ = flota_master::mqtt::understood(&topics, &String::from_utf8_lossy(rest), b"{}");
    }
}

/// What a worker reports by gRPC, into a core with jobs that this worker has; and what a master answers.
pub fn grpc(data: &[u8]) {
    if let Ok(message) = v1::WorkerMessage::decode(data) {
        let mut fleet = Fleet::new();
        fleet.report(flota_master::callback::report_of(message));
        fleet.tick();
    }
    let _ = v1::MasterMessage::decode(data);
    let _ = v1::FetchUnitRequest::decode(data);
    let _ = v1::LeaseCredentialRequest::decode(data);
    let _ = flota_proto::simple::TaskResult::decode(data);
}

/// Bodies of REST and events of Socket.IO. A job that is valid goes into a core.
pub fn rest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let submitted = kinds::object("", text).and_then(|()| kinds::parse::<SubmitJob>("", text));
    if let Ok(job) = submitted.and_then(|job| NewJob::from_submit(job, &Principal::local(), None)) {
        let mut fleet = Fleet::new();
        fleet.input(Input::Submit { job: Box::new(job), dependencies: Vec::new() });
        fleet.tick();
    }
    let _ = kinds::parse::<PatchJob>("", text);
    let _ = kinds::parse::<UserQuery>("", text);
    let _ = kinds::parse::<JobSubscribe>("", text);
    let _ = kinds::parse::<JobCancel>("", text);
    let _ = kinds::parse::<SessionResume>("", text);
}

/// An answer of an AI's server, cut where its first bytes say.
pub fn gemini(data: &[u8]) {
    flota_worker::hostile::ai_stream(data);
}

/// Settings: the lines up to an empty one are variables `NAME=VALUE`, the rest is `flota.toml`.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (variables, file) = text.split_once("\n\n").unwrap_or((&text, ""));
    let variable = |line: &str| {
        let (name, value) = line.split_once('=')?;
        // Files that settings name are not to be read, and a NUL can stand in no variable.
        let plain = !name.to_uppercase().ends_with("_FILE") && name != "FLOTA_CONFIG" && !line.contains('\0');
        plain.then(|| (OsString::from(name), OsString::from(value)))
    };
    let mut environment: Vec<_> = variables.lines().filter_map(variable).collect();
    environment.push(("HOME".into(), "/nonexistent".into()));
    let sources = Sources { document: Some(file.to_owned()), environment, ..Sources::default() };
    if let Err(errors) = Settings::load(&sources) {
        let _ = errors.to_string();
    }
}

fn first_line(data: &[u8]) -> (String, &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (String::from_utf8_lossy(&data[..at]).into_owned(), data.get(at + 1..).unwrap_or_default())
}
