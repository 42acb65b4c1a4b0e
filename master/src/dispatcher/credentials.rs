//! Users' own API keys: in memory until their job ends, leased once an attempt, never stored.

use std::collections::HashMap;

use flota_proto::{JobId, UnitId, WorkerId};
use secrecy::SecretString;

use super::Dispatcher;
use crate::handle::Refused;

/// The keys of jobs that have not ended.
#[derive(Default)]
pub struct Credentials {
    keys: HashMap<JobId, Credential>,
}

struct Credential {
    key: SecretString,
    leased_attempt: u64,
}

impl Credentials {
    /// Keeps a job's key.
    pub fn keep(&mut self, job: JobId, key: SecretString) {
        self.keys.insert(job, Credential { key, leased_attempt: 0 });
    }

    /// Whether a job's key is here.
    pub fn has(&self, job: JobId) -> bool {
        self.keys.contains_key(&job)
    }

    /// A job's key, for a simple worker that the operator trusts.
    pub fn get(&self, job: JobId) -> Option<&SecretString> {
        self.keys.get(&job).map(|credential| &credential.key)
    }

    /// Lets go of the keys of jobs that `lives` does not know.
    pub fn retain(&mut self, lives: impl Fn(JobId) -> bool) {
        self.keys.retain(|job, _| lives(*job));
    }

    /// Lets go of a job's key.
    pub fn drop_key(&mut self, job: JobId) {
        self.keys.remove(&job);
    }
}

impl Dispatcher {
    pub(super) fn lease_credential(
        &mut self,
        unit: UnitId,
        attempt: u64,
        worker: &WorkerId,
    ) -> Result<SecretString, Refused> {
        if self.core.held_part(worker, unit, attempt).is_none() {
            return Err(Refused::Conflict("stale", "this worker does not have this attempt".into()));
        }
        let lost = || Refused::NotFound("key for this job".into());
        let credential = self.credentials.keys.get_mut(&unit.job).ok_or_else(lost)?;
        if credential.leased_attempt >= attempt {
            return Err(Refused::Conflict("leased", "the key was leased for this attempt already".into()));
        }
        credential.leased_attempt = attempt;
        Ok(credential.key.clone())
    }

    /// Keys are lost with a restart: jobs that came with one can't go on.
    pub(super) fn fail_jobs_without_key(&mut self) {
        let at = self.moment();
        self.core.fail_credential_lost(at, &mut self.effects);
    }
}
