//! `echo`: gives back what it got, after a while or with a failure if asked to. For checks and benchmarks.

use std::time::Duration;

use async_trait::async_trait;
use flota_proto::Kind;
use flota_proto::kinds::{EchoPayload, EchoResult, Payload};

use super::{Context, Executor, Failure, Output, Unit};

/// Computes `echo`.
#[derive(Debug, Default)]
pub struct Echo;

#[async_trait]
impl Executor for Echo {
    fn kinds(&self) -> &[Kind] {
        &[Kind::Echo]
    }

    fn immediate(&self, unit: &Unit) -> Option<Result<Output, Failure>> {
        match &unit.payload {
            Payload::Echo(payload) if payload.sleep_ms.unwrap_or(0) == 0 => Some(answer(payload, unit.failures)),
            Payload::Echo(_) | Payload::Hash(_) | Payload::Search(_) | Payload::Chat(_) | Payload::Embed(_) => None,
        }
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let Payload::Echo(payload) = &unit.payload else {
            return Err(Failure::permanent("bad_payload", "the payload is not that of an echo"));
        };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(Failure::cancelled()),
            () = sleep(Duration::from_millis(payload.sleep_ms.unwrap_or(0)), &context) => answer(payload, unit.failures),
        }
    }
}

/// Sleeps in pieces, and says after each that it is alive.
async fn sleep(mut rest: Duration, context: &Context) {
    const PIECE: Duration = Duration::from_secs(1);
    while rest > PIECE {
        tokio::time::sleep(PIECE).await;
        rest -= PIECE;
        context.observer.alive();
    }
    tokio::time::sleep(rest).await;
}

fn answer(payload: &EchoPayload, failures: u32) -> Result<Output, Failure> {
    if let Some(fail) = payload.fail
        && failures < fail.times
    {
        let message = format!("failure {} of the {} that were asked for", failures + 1, fail.times);
        return Err(Failure { retryable: fail.retryable, ..Failure::permanent("echo_fail", message) });
    }
    let json = serde_json::to_vec(&EchoResult { value: payload.value.clone() })
        .map_err(|_| Failure::permanent("internal", "the value could not be written as JSON"))?;
    Ok(Output { json: json.into(), hashes: 0 })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flota_proto::{JobId, UnitId};
    use serde_json::value::RawValue;
    use tokio_util::sync::CancellationToken;

    use super::super::Observer;
    use super::*;

    struct Deaf;
    impl Observer for Deaf {
        fn progress(&self, _: f64, _: &str) {}
        fn delta(&self, _: &str) {}
        fn alive(&self) {}
    }

    fn unit(json: &str, failures: u32) -> Unit {
        Unit {
            id: UnitId { job: JobId::generate(), index: 0 },
            attempt: 1,
            kind: Kind::Echo,
            payload: Payload::parse(Kind::Echo, &RawValue::from_string(json.to_owned()).unwrap()).unwrap(),
            failures,
            timeout: Duration::from_secs(1),
            credential: None,
            own_key_only: false,
        }
    }

    fn context() -> Context {
        Context { cancel: CancellationToken::new(), observer: Arc::new(Deaf) }
    }

    #[test]
    fn the_value_comes_back_as_it_was() {
        let output = Echo.immediate(&unit(r#"{"value":{"b":1.50,"a":[null]}}"#, 0)).unwrap().unwrap();
        assert_eq!(output.json, r#"{"value":{"b":1.50,"a":[null]}}"#.as_bytes());
    }

    #[test]
    fn it_fails_as_often_as_asked() {
        let json = r#"{"value":1,"fail":{"times":2,"retryable":false}}"#;
        for failures in 0..2 {
            let failure = Echo.immediate(&unit(json, failures)).unwrap().unwrap_err();
            assert_eq!((failure.code.as_str(), failure.retryable), ("echo_fail", false));
        }
        assert!(Echo.immediate(&unit(json, 2)).unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_takes_its_time_and_can_be_cancelled() {
        let sleepy = r#"{"value":1,"sleep_ms":3500}"#;
        assert!(Echo.immediate(&unit(sleepy, 0)).is_none());
        let begun = tokio::time::Instant::now();
        assert!(Echo.execute(unit(sleepy, 0), context()).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_millis(3500));

        let context = context();
        context.cancel.cancel();
        assert_eq!(Echo.execute(unit(sleepy, 0), context).await.unwrap_err(), Failure::cancelled());
    }
}
