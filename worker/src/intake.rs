//! From the bytes of a tasks message to units. One unit that this build cannot read does not take the others with it.

use flota_proto::mqtt::{Task, Tasks};
use flota_proto::{UnitId, WorkerId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::executor::Failure;
use crate::table::Key;

/// A tasks message, taken apart.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) worker: WorkerId,
    pub(crate) epoch: u64,
    pub(crate) endpoint: String,
    pub(crate) units: Vec<Task>,
    /// Units that name themselves but cannot be read.
    pub(crate) refused: Vec<(Key, Failure)>,
    /// Units that do not even name themselves.
    pub(crate) unreadable: usize,
}

#[derive(Deserialize)]
struct Loose {
    worker_id: WorkerId,
    grpc_endpoint: String,
    epoch: u64,
    units: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Named {
    unit_id: UnitId,
    attempt: u64,
}

/// Takes a message apart.
///
/// # Errors
/// When it is no tasks message at all.
pub(crate) fn read(payload: &[u8]) -> Result<Intake, serde_json::Error> {
    match serde_json::from_slice::<Tasks>(payload) {
        Ok(tasks) => Ok(Intake {
            worker: tasks.worker_id,
            epoch: tasks.epoch,
            endpoint: tasks.grpc_endpoint,
            units: tasks.units,
            refused: Vec::new(),
            unreadable: 0,
        }),
        Err(_) => read_loosely(payload),
    }
}

fn read_loosely(payload: &[u8]) -> Result<Intake, serde_json::Error> {
    let loose: Loose = serde_json::from_slice(payload)?;
    let mut intake = Intake {
        worker: loose.worker_id,
        epoch: loose.epoch,
        endpoint: loose.grpc_endpoint,
        units: Vec::new(),
        refused: Vec::new(),
        unreadable: 0,
    };
    for unit in loose.units {
        match (serde_json::from_str::<Task>(unit.get()), serde_json::from_str::<Named>(unit.get())) {
            (Ok(task), _) => intake.units.push(task),
            (Err(error), Ok(named)) => {
                let message = format!("the unit as it was published cannot be read: {}", without_value(&error));
                intake.refused.push(((named.unit_id, named.attempt), Failure::permanent("bad_payload", message)));
            }
            (Err(_), Err(_)) => intake.unreadable += 1,
        }
    }
    Ok(intake)
}

/// serde's message may quote what it has read, which may be part of a payload.
pub(crate) fn without_value(error: &serde_json::Error) -> String {
    format!("{:?} error at column {}", error.classify(), error.column()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(units: &str) -> String {
        format!(r#"{{"worker_id":"w","grpc_endpoint":"h:1","epoch":4,"timestamp":1,"new":1,"units":[{units}]}}"#)
    }

    fn unit(index: u32, kind: &str) -> String {
        let job = "0193e5f0-7c1a-7000-8000-000000000000";
        format!(
            r#"{{"unit_id":"{job}/{index}","job_id":"{job}","attempt":2,"kind":"{kind}","lease_ms":15000,"payload":{{"value":1}}}}"#
        )
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let intake = read(message(&unit(0, "echo")).as_bytes()).unwrap();
        assert_eq!((intake.epoch, intake.endpoint.as_str(), intake.units.len()), (4, "h:1", 1));
    }

    #[test]
    fn a_unit_that_cannot_be_read_does_not_take_the_others_with_it() {
        let units = [unit(0, "echo"), unit(1, "secret-kind"), "{}".into(), unit(2, "echo")].join(",");
        let intake = read(message(&units).as_bytes()).unwrap();
        assert_eq!(intake.units.iter().map(|task| task.unit_id.index).collect::<Vec<_>>(), [0, 2]);
        let (key, failure) = &intake.refused[0];
        assert_eq!((key.0.index, key.1, failure.code.as_str(), failure.retryable), (1, 2, "bad_payload", false));
        assert!(!failure.message.contains("secret"), "{failure:?}");
        assert_eq!((intake.refused.len(), intake.unreadable), (1, 1));
    }

    #[test]
    fn what_is_no_tasks_message_is_an_error() {
        for bad in ["", "[]", "{}", r#"{"worker_id":"a/b","grpc_endpoint":"","epoch":1,"units":[]}"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
