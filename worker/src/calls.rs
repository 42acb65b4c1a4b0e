//! Unary calls to the master: for one attempt a payload that was too large for MQTT, and the user's own API key; for a dataset that
//! comes from another worker the digest that it must have.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flota_proto::kinds::{Kind, Payload};
use flota_proto::v1::worker_callback_client::WorkerCallbackClient;
use flota_proto::{BODY_BYTES_MAX, WorkerId, v1};
use flota_randomx::DIGEST_BYTES;
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::attempt;
use crate::executor::Failure;
use crate::peer::Digests;
use crate::table::Key;

/// How long a call is repeated while the master cannot be reached.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_millis(250);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The way to the master that the Report stream keeps open.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) channel: watch::Receiver<Option<Channel>>,
    pub(crate) worker: WorkerId,
    pub(crate) token: Option<SecretString>,
}

/// Puts the worker's token beside a message.
pub(crate) fn authorised<T>(message: T, token: Option<&SecretString>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token
        && let Ok(mut value) = format!("Bearer {}", token.expose_secret()).parse::<tonic::metadata::MetadataValue<_>>()
    {
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    request
}

impl Calls {
    /// The payload of an attempt, parsed and valid.
    pub(crate) async fn fetch_unit(&self, key: Key, kind: Kind) -> Result<Payload, Failure> {
        let bytes = self
            .patiently(|channel| self.fetch_once(key, channel))
            .await
            .map_err(|status| failure("payload_unavailable", "fetch the unit's payload", &status))?;
        let json: &RawValue = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::permanent("bad_payload", "payload: what the master holds is not JSON"))?;
        attempt::parse(kind, json)
    }

    async fn fetch_once(&self, (unit, attempt): Key, channel: Channel) -> Result<Bytes, Status> {
        let message =
            v1::FetchUnitRequest { unit_id: unit.to_string(), attempt, worker_id: self.worker.as_str().to_owned() };
        let mut client = WorkerCallbackClient::new(channel);
        let mut chunks = client.fetch_unit(authorised(message, self.token.as_ref())).await?.into_inner();
        let mut payload = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            if payload.len() + chunk.payload.len() > BODY_BYTES_MAX {
                return Err(Status::out_of_range("the payload is larger than 32 MiB"));
            }
            payload.extend_from_slice(&chunk.payload);
        }
        Ok(payload.into())
    }

    /// The user's own API key for an attempt; answered once.
    pub(crate) async fn lease_credential(&self, key: Key) -> Result<SecretString, Failure> {
        self.patiently(|channel| self.lease_once(key, channel))
            .await
            .map_err(|status| failure("credential_unavailable", "lease the question's API key", &status))
    }

    async fn lease_once(&self, (unit, attempt): Key, channel: Channel) -> Result<SecretString, Status> {
        let message = v1::LeaseCredentialRequest {
            unit_id: unit.to_string(),
            attempt,
            worker_id: self.worker.as_str().to_owned(),
        };
        let mut client = WorkerCallbackClient::new(channel);
        let response = client.lease_credential(authorised(message, self.token.as_ref())).await?.into_inner();
        Ok(response.api_key.into())
    }

    /// Repeats a call while there is no way to the master.
    async fn patiently<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let patience = Instant::now() + PATIENCE;
        loop {
            let channel = self.channel.borrow().clone();
            let outcome = match channel {
                Some(channel) => tokio::time::timeout(CALL_TIMEOUT, call(channel))
                    .await
                    .unwrap_or_else(|_| Err(Status::unavailable("no answer from the master"))),
                None => Err(Status::unavailable("no connection to the master")),
            };
            match outcome {
                Err(status) if status.code() == Code::Unavailable && Instant::now() < patience => {
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl Digests for Calls {
    async fn accepted(&self, key: &[u8]) -> Result<Option<[u8; DIGEST_BYTES]>, String> {
        let channel = self.channel.borrow().clone().ok_or("no connection to the master")?;
        let mut client = WorkerCallbackClient::new(channel);
        let message = v1::AcceptedDigestRequest { key: key.to_vec().into() };
        let asked = client.accepted_digest(authorised(message, self.token.as_ref()));
        let answered = tokio::time::timeout(CALL_TIMEOUT, asked).await.map_err(|_| "no answer from the master")?;
        match answered {
            Ok(response) => match &response.into_inner().digest[..] {
                [] => Ok(None),
                digest => digest.try_into().map(Some).map_err(|_| "it is not 32 bytes long".to_owned()),
            },
            // An older master, which knows none.
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status.message().to_owned()),
        }
    }
}

fn failure(code: &str, what: &str, status: &Status) -> Failure {
    Failure::transient(code, format!("failed to {what} from the master: {}", status.message()))
}
