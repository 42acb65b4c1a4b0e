//! Users' own API keys: sealed in memory and in the store until their job ends, leased once an attempt.

use std::collections::HashMap;

use flota_proto::{JobId, UnitId, WorkerId};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::Dispatcher;
use crate::aside::Aside;
use crate::handle::Refused;

/// The keys of jobs that have not ended.
#[derive(Default)]
pub struct Credentials {
    keys: HashMap<JobId, Credential>,
}

struct Credential {
    sealed: Vec<u8>,
    leased_attempt: u64,
}

impl Credentials {
    /// Takes back a job's key from the store.
    pub fn restore(&mut self, job: JobId, sealed: Vec<u8>) {
        self.keys.insert(job, Credential { sealed, leased_attempt: 0 });
    }

    /// Whether a job's key is here.
    pub fn has(&self, job: JobId) -> bool {
        self.keys.contains_key(&job)
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
    /// Keeps a job's key, sealed.
    pub(super) fn keep_key(&mut self, job: JobId, key: &SecretString) {
        let sealed = self.config.sealer.seal(job.0.as_bytes(), key);
        self.asides.push(Aside::KeepKey(job, sealed.clone()));
        self.note_key(job, key);
        self.credentials.restore(job, sealed);
    }

    /// Limits count by key: the core knows a digest of it that says nothing without the store's secret.
    pub(super) fn note_key(&mut self, job: JobId, key: &SecretString) {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return };
        let digest = mac.chain_update(b"key").chain_update(key.expose_secret()).finalize().into_bytes();
        if let Some(first) = digest.first_chunk::<8>() {
            self.core.note_key(job, u64::from_be_bytes(*first));
        }
    }

    /// Tells a core that begins again with which keys its jobs came.
    pub(super) fn note_keys_again(&mut self) {
        for job in self.credentials.keys.keys().copied().collect::<Vec<_>>() {
            if let Some(key) = self.open_key(job) {
                self.note_key(job, &key);
            }
        }
    }

    /// A job's key, for the moment in which it is handed on.
    pub(super) fn open_key(&self, job: JobId) -> Option<SecretString> {
        let credential = self.credentials.keys.get(&job)?;
        self.config.sealer.open(job.0.as_bytes(), &credential.sealed)
    }

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
        let key = self.open_key(unit.job).ok_or_else(lost)?;
        let credential = self.credentials.keys.get_mut(&unit.job).ok_or_else(lost)?;
        if credential.leased_attempt >= attempt {
            return Err(Refused::Conflict("leased", "the key was leased for this attempt already".into()));
        }
        credential.leased_attempt = attempt;
        Ok(key)
    }

    /// Jobs that came with a key which is not here can't go on.
    pub(super) fn fail_jobs_without_key(&mut self) {
        let at = self.moment();
        let credentials = &self.credentials;
        self.core.fail_credential_lost(at, |job| credentials.has(job), &mut self.effects);
    }
}
