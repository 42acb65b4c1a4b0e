//! From payloads to messages. What is wrong is said by topic and place, never by content: a payload may hold anything.

use flota_proto::WorkerId;
use flota_proto::mqtt::{LogLine, MasterStatus, Register, WorkerStatus};
use flota_proto::topics::Topics;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Larger messages on the topics that the master reads are nonsense.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const PATH_CHARS_MAX: usize = 64;

/// What the master hears.
#[derive(Debug)]
pub(super) enum Heard {
    Register(Register),
    /// On the live stream, or a worker's last will on its own topic.
    Status(WorkerStatus),
    /// A worker's own topic repeats what the live stream said; only its end is news there.
    Repeated,
    Log(LogLine),
    Master(MasterStatus),
}

/// What the topics below one root mean to the master.
pub(super) struct Ears {
    register: String,
    status: String,
    logs: String,
    master: String,
    workers: String,
}

impl Ears {
    pub(super) fn new(topics: &Topics) -> Self {
        Self {
            register: topics.register(),
            status: topics.workers_status(),
            logs: topics.logs(),
            master: topics.master_status(),
            workers: format!("{}/workers/", topics.root()),
        }
    }

    /// # Errors
    /// What is wrong, and where.
    pub(super) fn parse(&self, topic: &str, payload: &[u8]) -> Result<Heard, String> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!("{} bytes are too many", payload.len()));
        }
        if topic == self.register {
            json(payload).map(Heard::Register)
        } else if topic == self.status {
            json(payload).map(Heard::Status)
        } else if topic == self.logs {
            json(payload).map(Heard::Log)
        } else if topic == self.master {
            json(payload).map(Heard::Master)
        } else {
            self.state(topic, payload)
        }
    }

    fn state(&self, topic: &str, payload: &[u8]) -> Result<Heard, String> {
        let worker: WorkerId = topic
            .strip_prefix(&self.workers)
            .and_then(|rest| rest.strip_suffix("/state"))
            .and_then(|worker| worker.parse().ok())
            .ok_or("nothing is expected on this topic")?;
        if payload.is_empty() {
            return Ok(Heard::Repeated);
        }
        let status: WorkerStatus = json(payload)?;
        if status.worker_id != worker {
            return Err("worker_id is not that of the topic".into());
        }
        let gone = status.status == flota_proto::mqtt::WorkerState::Offline;
        Ok(if gone { Heard::Status(status) } else { Heard::Repeated })
    }
}

fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path: String = error.path().to_string().chars().filter(|c| !c.is_control()).take(PATH_CHARS_MAX).collect();
        let inner = error.inner();
        match inner.classify() {
            Category::Data if missing(inner) => format!("{} in '{path}'", missing_text(inner)),
            Category::Data => format!("wrong value or type at '{path}'"),
            Category::Syntax | Category::Io => {
                format!("no JSON at line {} column {}", inner.line(), inner.column())
            }
            Category::Eof => "the JSON ends too early".to_owned(),
        }
    })?;
    deserializer.end().map_err(|_| "something follows the JSON".to_owned())?;
    Ok(parsed)
}

/// "missing field `x`" names our own field, not the sender's content.
fn missing(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("missing field")
}

fn missing_text(error: &serde_json::Error) -> String {
    error.to_string().split(" at line").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ears() -> Ears {
        Ears::new(&Topics::new("flota").expect("valid"))
    }

    #[test]
    fn a_simple_workers_registration_is_enough() {
        let payload = br#"{"worker_id":"py-1","language":"python","status":"idle","timestamp":1}"#;
        let Ok(Heard::Register(register)) = ears().parse("flota/workers/register", payload) else { panic!() };
        assert_eq!((register.worker_id.as_str(), register.protocol), ("py-1", None));
    }

    #[test]
    fn a_worker_may_speak_on_its_own_topic_only_and_only_its_end_is_news_there() {
        let state = |topic: &str, status: &str| {
            let payload = format!(r#"{{"worker_id":"w1","status":"{status}"}}"#);
            ears().parse(topic, payload.as_bytes())
        };
        assert!(matches!(state("flota/workers/w1/state", "offline"), Ok(Heard::Status(_))));
        assert!(matches!(state("flota/workers/w1/state", "busy"), Ok(Heard::Repeated)));
        assert!(matches!(state("flota/workers/status", "busy"), Ok(Heard::Status(_))));
        assert!(state("flota/workers/w2/state", "offline").is_err());
        assert!(state("flota/workers/w1/tasks", "offline").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_content() {
        let cases: [(&[u8], &str); 8] = [
            (b"hunter2", "no JSON at line 1"),
            (b"{\"worker_id\":\"hunter2", "ends too early"),
            (br#"{"worker_id":"w","status":"hunter2"}"#, "wrong value or type at 'status'"),
            (br#"{"worker_id":"hunter 2","status":"idle"}"#, "'worker_id'"),
            (br#"{"worker_id":"w"}"#, "missing field `status`"),
            (br#"{"worker_id":"w","status":"idle"}hunter2"#, "follows"),
            (br#"["hunter2"]"#, "wrong value"),
            (b"\xff\xfe", "no JSON"),
        ];
        for (payload, expected) in cases {
            let error = ears().parse("flota/workers/status", payload).expect_err("it is malformed");
            assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        let large = vec![b' '; PAYLOAD_BYTES_MAX + 1];
        assert!(ears().parse("flota/logs", &large).is_err());
    }
}
