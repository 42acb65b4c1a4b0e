//! What is stored of Socket.IO sessions, so that they outlive the master, and how the web side says and asks it. A session that
//! is in use lives there; the store is read when one comes back that is not known any more.

use std::fmt;

use flota_proto::JobId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::handle::{Command, Handle, Refused};

/// A session that nobody came back to is forgotten after this.
pub const AGE_MAX_MS: u64 = 24 * 3_600_000;

/// What a session is called, and what opens it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// What it is called.
    pub id: Uuid,
    /// The digest of its secret, which is kept nowhere.
    pub digest: [u8; 32],
}

impl SessionKey {
    /// Of the session `id` that `secret` opens.
    #[must_use]
    pub fn new(id: Uuid, secret: &str) -> Self {
        Self { id, digest: Sha256::digest(secret).into() }
    }

    /// Whether `digest` is that of the secret; takes as long whatever differs.
    #[must_use]
    pub fn fits(&self, digest: &[u8; 32]) -> bool {
        self.digest.iter().zip(digest).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)
    }
}

/// A job that a session is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Which job.
    pub job: JobId,
    /// The last event that was told.
    pub after: Option<u64>,
    /// Whether its end is told as an answer.
    pub question: bool,
}

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// It begins.
    Begin(SessionKey),
    /// It is to be told of a job; a question stays one.
    Follow(SessionKey, Followed),
    /// It was told all of a job.
    Told(Uuid, JobId),
    /// It is in use, or was just left; with how far it was told of jobs.
    Seen(Uuid, Vec<(JobId, u64)>),
    /// It goes.
    Forget(Uuid),
}

impl Handle {
    /// What a session is still to be told.
    ///
    /// # Errors
    /// [`Refused::NotFound`] when the key opens none.
    pub async fn session(&self, key: SessionKey) -> Result<Vec<Followed>, Refused> {
        self.ask(|reply| Command::Session { key, reply }).await
    }

    /// Changes what is stored of sessions, in one of the next commits. What is lost when the store fails is told again later.
    pub async fn keep_sessions(&self, changes: Vec<SessionChange>) {
        if changes.is_empty() {
            return;
        }
        if let Err(refused) = self.tell(Command::Sessions(changes)).await {
            tracing::debug!(%refused, "what a session was told was not kept");
        }
    }
}
