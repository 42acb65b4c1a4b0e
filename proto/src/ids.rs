//! Identifiers, parsed on entry so that the rest of the code never holds a bad one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error as ThisError;
use uuid::Uuid;

/// A job's identifier: a UUIDv7, made by the master or chosen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Takes the text without a copy, and says what a job id is as everywhere else.
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = JobId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a job id")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<JobId, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JobId {
    /// A new identifier that sorts after those made before.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text).map(Self).map_err(|_| IdError::Job)
    }
}

/// A work unit's identifier, `{job_id}/{index}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId {
    /// The job that the unit was cut from.
    pub job: JobId,
    /// 0, 1, … in the order of cutting.
    pub index: u32,
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.index)
    }
}

impl FromStr for UnitId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (job, index) = text.split_once('/').ok_or(IdError::Unit)?;
        Ok(Self { job: job.parse().map_err(|_| IdError::Unit)?, index: index.parse().map_err(|_| IdError::Unit)? })
    }
}

impl Serialize for UnitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A worker's identifier: 1 to 128 printable ASCII characters without spaces, `/`, `+`, `#`, and no `$` in front,
/// because it stands in MQTT topics.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=128).contains(&text.len())
            && !text.starts_with('$')
            && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'+' | b'#'));
        if fits { Ok(Self(text.into())) } else { Err(IdError::Worker) }
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for WorkerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WorkerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is no identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum IdError {
    /// Not a UUID.
    #[error("a job id is a UUID such as 0193e5f0-7c1a-7000-8000-000000000000")]
    Job,
    /// Not `{job_id}/{index}`.
    #[error("a unit id is {{job_id}}/{{index}}")]
    Unit,
    /// Not usable in a topic.
    #[error("a worker id is 1 to 128 printable ASCII characters without spaces, '/', '+', '#', and no '$' in front")]
    Worker,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_id_round_trips() {
        let unit = UnitId { job: JobId::generate(), index: 7 };
        assert_eq!(unit.to_string().parse(), Ok(unit));
        for bad in ["", "x", "0193e5f0-7c1a-7000-8000-000000000000", "0193e5f0-7c1a-7000-8000-000000000000/-1"] {
            assert_eq!(bad.parse::<UnitId>(), Err(IdError::Unit), "{bad}");
        }
    }

    #[test]
    fn a_bad_job_id_in_a_document_is_explained() {
        let error = serde_json::from_str::<JobId>("\"x\"").unwrap_err().to_string();
        assert!(error.starts_with("a job id is a UUID such as "), "{error}");
        let id = JobId::generate();
        assert_eq!(serde_json::from_str::<JobId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn a_worker_id_never_holds_what_a_topic_cannot() {
        for bad in ["", "a/b", "a+", "#", "$SYS", "two words", "ä", &"x".repeat(129)] {
            assert_eq!(bad.parse::<WorkerId>(), Err(IdError::Worker), "{bad}");
        }
        assert!("node-1.task_2:3".parse::<WorkerId>().is_ok());
    }
}
