//! The gRPC server against real tonic clients, with a stand-in for the dispatcher that reads the commands.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use bytes::Bytes;
use flota_master::callback::{self, Callback, CallbackConfig, CallbackError};
use flota_master::handle::{Command, Handle, Hello, Refused, StreamId};
use flota_proto::simple::{TaskResult, worker_callback_client::WorkerCallbackClient as SimpleClient};
use flota_proto::v1::worker_callback_client::WorkerCallbackClient;
use flota_proto::{JobId, PROTOCOL, UnitId, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

const DEADLINE: Duration = Duration::from_secs(20);
const RESULT_BYTES_MAX: u64 = 2_000_000;

struct Fixture {
    callback: Callback,
    commands: mpsc::Receiver<Command>,
    stop: CancellationToken,
}

impl Fixture {
    async fn start(token: Option<&str>) -> Self {
        let (handle, commands) = Handle::channel();
        let stop = CancellationToken::new();
        let config = CallbackConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            worker_token: token.map(|token| token.to_owned().into()),
        };
        let callback = callback::start(config, handle, stop.clone()).await.unwrap();
        Self { callback, commands, stop }
    }

    async fn client(&self) -> WorkerCallbackClient<Channel> {
        WorkerCallbackClient::connect(format!("http://{}", self.callback.addr())).await.unwrap()
    }

    async fn command(&mut self) -> Command {
        within(self.commands.recv()).await.unwrap()
    }

    /// Answers the next command, which must be a worker's hello.
    async fn welcome(&mut self, epoch: u64) -> (Hello, mpsc::Sender<v1::MasterMessage>) {
        match self.command().await {
            Command::StreamOpened { hello, sender, reply } => {
                let welcome = v1::Welcome { epoch, result_bytes_max: RESULT_BYTES_MAX, ..Default::default() };
                reply.send(Ok((StreamId(epoch), welcome))).unwrap();
                (hello, sender)
            }
            other => panic!("a hello opens a stream: {other:?}"),
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

fn hello() -> v1::WorkerMessage {
    let hello = v1::Hello {
        worker_id: "w1".into(),
        boot_id: "b1".into(),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        ..Default::default()
    };
    v1::WorkerMessage { hello: Some(hello), ..Default::default() }
}

fn with_hello(change: impl FnOnce(&mut v1::Hello)) -> v1::WorkerMessage {
    let mut message = hello();
    change(message.hello.as_mut().unwrap());
    message
}

fn unit() -> UnitId {
    UnitId { job: JobId::generate(), index: 0 }
}

/// Sends `first` and whatever is sent later.
async fn open(
    client: &mut WorkerCallbackClient<Channel>,
    first: v1::WorkerMessage,
) -> Result<(mpsc::Sender<v1::WorkerMessage>, Streaming<v1::MasterMessage>), tonic::Status> {
    let (sender, outgoing) = mpsc::channel(100);
    sender.send(first).await.unwrap();
    let answers = within(client.report(ReceiverStream::new(outgoing))).await?.into_inner();
    Ok((sender, answers))
}

#[tokio::test]
async fn a_worker_says_hello_reports_and_is_acknowledged() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let (running, finished) = (unit(), unit());
    let first = with_hello(|hello| {
        hello.running = vec![v1::Attempt::of(running, 2), v1::Attempt { unit_id: "nonsense".into(), attempt: 1 }];
        hello.finished = vec![v1::Attempt::of(finished, 5)];
    });
    let opening = tokio::spawn(async move { open(&mut client, first).await });
    let (hello, to_worker) = fixture.welcome(7).await;
    assert_eq!((hello.worker.as_str(), hello.boot_id.as_str()), ("w1", "b1"));
    assert_eq!((hello.running, hello.finished), (vec![(running, 2)], vec![(finished, 5)]));
    let (worker, mut answers) = within(opening).await.unwrap().unwrap();
    let welcome = within(answers.message()).await.unwrap().unwrap().welcome.unwrap();
    assert_eq!((welcome.epoch, welcome.protocol), (7, PROTOCOL));

    let result = v1::Result {
        unit_id: finished.to_string(),
        attempt: 5,
        output: Bytes::from_static(b"{}"),
        ..Default::default()
    };
    worker.send(v1::WorkerMessage { results: vec![result], ..Default::default() }).await.unwrap();
    let Command::Report { stream, report } = fixture.command().await else { panic!("a report") };
    assert_eq!(stream, StreamId(7));
    assert_eq!((report.results[0].unit, report.results[0].attempt), (finished, 5));

    let ack = v1::Ack { unit_id: finished.to_string(), attempt: 5, outcome: v1::Outcome::Applied.into() };
    to_worker.send(v1::MasterMessage { acks: vec![ack.clone()], ..Default::default() }).await.unwrap();
    assert_eq!(within(answers.message()).await.unwrap().unwrap().acks, [ack]);

    drop(worker);
    assert!(matches!(fixture.command().await, Command::StreamClosed(StreamId(7))));
}

#[tokio::test]
async fn malformed_items_are_skipped_and_the_stream_survives() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(1).await;
    let (worker, _answers) = within(opening).await.unwrap().unwrap();
    let good = unit();
    for unit_id in ["", "a/b", "../../etc", &good.to_string()] {
        let accepted = vec![v1::Accepted { unit_id: unit_id.into(), attempt: 1, started: true }];
        worker.send(v1::WorkerMessage { accepted, ..Default::default() }).await.unwrap();
    }
    let Command::Report { report, .. } = fixture.command().await else { panic!("a report") };
    assert_eq!(report.accepted, [(good, 1, true)]);
}

#[tokio::test]
async fn a_result_of_no_unit_is_acknowledged_as_stale() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(7).await;
    let (worker, mut answers) = within(opening).await.unwrap().unwrap();
    within(answers.message()).await.unwrap().unwrap().welcome.unwrap();
    let results = vec![v1::Result { unit_id: "nonsense".into(), attempt: 3, ..Default::default() }];
    let failures = vec![v1::Failure { unit_id: "x/y".into(), attempt: 4, ..Default::default() }];
    worker.send(v1::WorkerMessage { results, failures, ..Default::default() }).await.unwrap();
    let acks = within(answers.message()).await.unwrap().unwrap().acks;
    let stale =
        |unit_id: &str, attempt| v1::Ack { unit_id: unit_id.into(), attempt, outcome: v1::Outcome::Stale.into() };
    assert_eq!(acks, [stale("nonsense", 3), stale("x/y", 4)]);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_and_says_so() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(7).await;
    let (worker, mut answers) = within(opening).await.unwrap().unwrap();
    within(answers.message()).await.unwrap().unwrap().welcome.unwrap();
    let output = Bytes::from(vec![b' '; flota_proto::GRPC_MESSAGE_BYTES_MAX + 1]);
    let results = vec![v1::Result { unit_id: unit().to_string(), attempt: 1, output, ..Default::default() }];
    worker.send(v1::WorkerMessage { results, ..Default::default() }).await.unwrap();
    let status = within(answers.message()).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
    assert!(matches!(fixture.command().await, Command::StreamClosed(_)));
}

#[tokio::test]
async fn a_result_in_parts_comes_whole_and_one_that_is_too_large_as_a_failure() {
    const PART: usize = 500_000;
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(1).await;
    let (worker, _answers) = within(opening).await.unwrap().unwrap();
    let (fits, too_large) = (unit(), unit());
    let most = usize::try_from(RESULT_BYTES_MAX).unwrap();
    tokio::spawn(async move {
        for (unit, bytes) in [(too_large, most + 1), (fits, most)] {
            let output = Bytes::from(vec![b'7'; bytes]);
            let (unit_id, attempt) = (unit.to_string(), 1);
            let mut from = 0;
            while bytes - from > PART {
                let (output_from, output) = (from as u64, output.slice(from..from + PART));
                let part = v1::ResultPart { unit_id: unit_id.clone(), attempt, output_from, output, output_bytes: 0 };
                worker.send(v1::WorkerMessage { result_parts: vec![part], ..Default::default() }).await.unwrap();
                from += PART;
            }
            let (output_from, output) = (from as u64, output.slice(from..));
            let last = v1::Result { unit_id, attempt, output, output_from, ..Default::default() };
            worker.send(v1::WorkerMessage { results: vec![last], ..Default::default() }).await.unwrap();
        }
    });
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    while results.is_empty() {
        let Command::Report { report, .. } = fixture.command().await else { panic!("a report") };
        results.extend(report.results);
        failures.extend(report.failures);
    }
    assert_eq!((results[0].unit, results[0].output.len()), (fits, most));
    assert_eq!((failures.len(), failures[0].unit, failures[0].retryable), (1, too_large, false));
    assert_eq!(failures[0].error.code, "result_too_large");
}

#[tokio::test]
async fn a_large_result_for_which_there_is_no_room_is_to_be_sent_again() {
    let mut fixture = Fixture::start(None).await;
    let begun = |unit: UnitId| v1::ResultPart {
        unit_id: unit.to_string(),
        attempt: 1,
        output_bytes: RESULT_BYTES_MAX,
        output: "1234".into(),
        ..Default::default()
    };
    let last = |unit: UnitId| v1::Result {
        unit_id: unit.to_string(),
        attempt: 1,
        output_from: 4,
        output: "56".into(),
        ..Default::default()
    };
    let mut streams = Vec::new();
    for epoch in 1..=5 {
        let mut client = fixture.client().await;
        let opening = tokio::spawn(async move { open(&mut client, hello()).await });
        let (_, to_worker) = fixture.welcome(epoch).await;
        let (worker, mut answers) = within(opening).await.unwrap().unwrap();
        within(answers.message()).await.unwrap().unwrap().welcome.expect("a welcome");
        let unit = unit();
        worker.send(v1::WorkerMessage { result_parts: vec![begun(unit)], ..Default::default() }).await.unwrap();
        // What is reported after it says that it was taken in.
        let accepted = vec![v1::Accepted { unit_id: unit.to_string(), attempt: 1, started: true }];
        worker.send(v1::WorkerMessage { accepted, ..Default::default() }).await.unwrap();
        assert!(matches!(fixture.command().await, Command::Report { .. }));
        streams.push((unit, worker, answers, to_worker));
    }
    let (put_off, worker, mut answers, _to_worker) = streams.pop().unwrap();
    let told = within(answers.message()).await.unwrap().unwrap();
    assert_eq!(told.send_again, [v1::Attempt::of(put_off, 1)]);

    let (first, other, ..) = &streams[0];
    other.send(v1::WorkerMessage { results: vec![last(*first)], ..Default::default() }).await.unwrap();
    let Command::Report { report, .. } = fixture.command().await else { panic!("a report") };
    assert_eq!(report.results[0].output, "123456");
    let again =
        v1::WorkerMessage { result_parts: vec![begun(put_off)], results: vec![last(put_off)], ..Default::default() };
    // What was on its way when it was told.
    worker.send(v1::WorkerMessage { results: vec![last(put_off)], ..Default::default() }).await.unwrap();
    worker.send(again).await.unwrap();
    let mut results = Vec::new();
    while results.is_empty() {
        let Command::Report { report, .. } = fixture.command().await else { panic!("a report") };
        assert!(report.failures.is_empty(), "it costs no try: {report:?}");
        results.extend(report.results);
    }
    assert_eq!((results[0].unit, &results[0].output[..]), (put_off, &b"123456"[..]));
}

#[tokio::test]
async fn what_arrived_while_the_loop_was_busy_comes_in_few_reports() {
    const MESSAGES: usize = 5_000;
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(1).await;
    let (worker, _answers) = within(opening).await.unwrap().unwrap();
    tokio::spawn(async move {
        for attempt in 1..=MESSAGES as u64 {
            let accepted = vec![v1::Accepted { unit_id: unit().to_string(), attempt, started: true }];
            worker.send(v1::WorkerMessage { accepted, ..Default::default() }).await.unwrap();
        }
    });
    let (mut attempts, mut reports) = (Vec::new(), 0);
    while attempts.len() < MESSAGES {
        let Command::Report { report, .. } = fixture.command().await else { panic!("a report") };
        attempts.extend(report.accepted.iter().map(|accepted| accepted.1));
        reports += 1;
    }
    assert!(attempts.is_sorted(), "in the order of sending");
    assert!(reports < MESSAGES, "{reports} reports for {MESSAGES} messages");
}

#[tokio::test]
async fn a_stream_that_does_not_begin_rightly_is_refused_with_a_reason() {
    let fixture = Fixture::start(Some("s3cret")).await;
    let mut client = fixture.client().await;
    let token = |hello: &mut v1::Hello| hello.token = "s3cret".into();
    let cases = [
        (v1::WorkerMessage::default(), Code::InvalidArgument, "hello"),
        (hello(), Code::Unauthenticated, "FLOTA_WORKER_TOKEN"),
        (with_hello(|hello| hello.token = "S3cret".into()), Code::Unauthenticated, "FLOTA_WORKER_TOKEN"),
        (with_hello(|hello| (token(hello), hello.worker_id = "a/b".into()).0), Code::InvalidArgument, "worker_id"),
        (with_hello(|hello| (token(hello), hello.boot_id.clear()).0), Code::InvalidArgument, "boot_id"),
        (
            with_hello(|hello| (token(hello), hello.protocol_min = 99, hello.protocol_max = 99).0),
            Code::FailedPrecondition,
            "update",
        ),
    ];
    for (first, code, reason) in cases {
        let status = open(&mut client, first).await.expect_err("it is refused");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(reason), "{status}");
    }
    let status = client.fetch_unit(v1::FetchUnitRequest::default()).await.expect_err("no token");
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = client.lease_credential(v1::LeaseCredentialRequest::default()).await.expect_err("no token");
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = client.accepted_digest(v1::AcceptedDigestRequest::default()).await.expect_err("no token");
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_token_is_taken_from_the_metadata_too() {
    let mut fixture = Fixture::start(Some("s3cret")).await;
    let mut client = fixture.client().await;
    let (sender, outgoing) = mpsc::channel(1);
    sender.send(hello()).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("authorization", "Bearer s3cret".parse().unwrap());
    let opening = tokio::spawn(async move { client.report(request).await.map(|_| ()) });
    let (_, _to_worker) = fixture.welcome(1).await;
    within(opening).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_listener_beyond_loopback_demands_a_token() {
    let config = CallbackConfig { listen: "0.0.0.0:0".parse().unwrap(), worker_token: None };
    let started = callback::start(config, Handle::channel().0, CancellationToken::new()).await;
    let error = started.expect_err("refused");
    assert!(matches!(error, CallbackError::TokenNeeded(_)) && error.to_string().contains("FLOTA_WORKER_TOKEN"));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let config = CallbackConfig { listen, worker_token: None };
    let error = callback::start(config, Handle::channel().0, CancellationToken::new()).await.expect_err("taken");
    let text = error.to_string();
    assert!(text.contains(&listen.to_string()) && text.contains("FLOTA_GRPC_LISTEN"), "{text}");
}

#[tokio::test]
async fn a_large_payload_is_fetched_in_chunks() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let payload = Bytes::from((0..3_000_000_u32).map(|i| i as u8).collect::<Vec<u8>>());
    let (sent, wanted) = (payload.clone(), unit());
    let fetching = tokio::spawn(async move {
        let request = v1::FetchUnitRequest { unit_id: wanted.to_string(), attempt: 4, worker_id: "w1".into() };
        let mut chunks = client.fetch_unit(request).await?.into_inner();
        let mut fetched = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            fetched.extend_from_slice(&chunk.payload);
        }
        Ok::<_, tonic::Status>(fetched)
    });
    let Command::FetchUnit { unit, attempt, worker, reply } = fixture.command().await else { panic!("a fetch") };
    assert_eq!((unit, attempt, worker.as_str()), (wanted, 4, "w1"));
    reply.send(Ok(sent)).unwrap();
    assert_eq!(within(fetching).await.unwrap().unwrap(), payload);
}

#[tokio::test]
async fn a_key_is_leased_and_a_refusal_keeps_its_reason() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let request = v1::LeaseCredentialRequest { unit_id: unit().to_string(), attempt: 1, worker_id: "w1".into() };
    let leasing = tokio::spawn(async move {
        let first = client.lease_credential(request.clone()).await.unwrap().into_inner();
        (first, client.lease_credential(request).await)
    });
    for answer in [Ok("the key".to_owned().into()), Err(Refused::Conflict("leased", "it was leased before".into()))] {
        let Command::LeaseCredential { reply, .. } = fixture.command().await else { panic!("a lease") };
        reply.send(answer).unwrap();
    }
    let (first, second) = within(leasing).await.unwrap();
    assert_eq!(first.api_key, "the key");
    let status = second.expect_err("once only");
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "it was leased before"));
}

#[tokio::test]
async fn the_digest_of_a_dataset_is_told_where_one_is_accepted() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let asking = tokio::spawn(async move {
        let mut answers = Vec::new();
        for length in [60, 0, 61] {
            let request = v1::AcceptedDigestRequest { key: vec![5; length].into() };
            answers.push(client.accepted_digest(request).await.map(|response| response.into_inner().digest.to_vec()));
        }
        answers
    });
    for (wanted, digest) in [(60, Some([9; 32])), (0, None)] {
        let Command::AcceptedDigest { key, reply } = fixture.command().await else { panic!("a question") };
        assert_eq!(key.len(), wanted);
        reply.send(Ok(digest)).unwrap();
    }
    let answers = within(asking).await.unwrap();
    assert_eq!((answers[0].as_ref().unwrap(), answers[1].as_ref().unwrap()), (&vec![9; 32], &Vec::new()));
    assert_eq!(answers[2].as_ref().expect_err("no key is that long").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_simple_worker_needs_no_token_and_is_told_what_became_of_its_answer() {
    let mut fixture = Fixture::start(Some("s3cret")).await;
    let url = format!("http://{}", fixture.callback.addr());
    let sending = tokio::spawn(async move {
        let mut client = SimpleClient::connect(url).await.unwrap();
        let result = TaskResult { worker_id: "py".into(), query_timestamp: 42, ..Default::default() };
        let applied = client.send_result(result.clone()).await.unwrap().into_inner();
        (applied, client.send_result(result).await.unwrap().into_inner())
    });
    let answers = [Ok("stored".to_owned()), Err(Refused::NotFound("such attempt".into()))];
    for answer in answers {
        let Command::SimpleResult { result, reply } = fixture.command().await else { panic!("a result") };
        assert_eq!((result.worker_id.as_str(), result.query_timestamp), ("py", 42));
        reply.send(answer).unwrap();
    }
    let (applied, ignored) = within(sending).await.unwrap();
    assert_eq!((applied.success, applied.message.as_str()), (true, "stored"));
    assert!(ignored.success && ignored.message.contains("ignored"), "{ignored:?}");
}

#[tokio::test]
async fn the_loop_ends_a_stream_by_dropping_its_sender() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, to_worker) = fixture.welcome(1).await;
    let (_worker, mut answers) = within(opening).await.unwrap().unwrap();
    let goodbye = v1::MasterMessage { goodbye: Some("superseded".into()), ..Default::default() };
    to_worker.send(goodbye).await.unwrap();
    drop(to_worker);
    assert!(within(answers.message()).await.unwrap().unwrap().welcome.is_some());
    assert_eq!(within(answers.message()).await.unwrap().unwrap().goodbye.as_deref(), Some("superseded"));
    assert!(within(answers.message()).await.unwrap().is_none());
    assert!(matches!(fixture.command().await, Command::StreamClosed(StreamId(1))), "its reader ends too");
}

#[tokio::test]
async fn stopping_ends_open_streams_and_then_the_server() {
    let mut fixture = Fixture::start(None).await;
    let mut client = fixture.client().await;
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(1).await;
    let (_worker, mut answers) = within(opening).await.unwrap().unwrap();
    within(answers.message()).await.unwrap().unwrap();
    fixture.stop.cancel();
    assert!(within(answers.message()).await.unwrap().is_none());
    assert!(matches!(fixture.command().await, Command::StreamClosed(StreamId(1))));
    within(fixture.callback.ended()).await;
}

/// Forwards until `frozen`, then keeps the connections open without a word.
async fn freezing(to: std::net::SocketAddr, frozen: CancellationToken) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
        let copying = tokio::io::copy_bidirectional(&mut peer, &mut server);
        frozen.run_until_cancelled(copying).await;
        std::future::pending::<()>().await;
    });
    addr
}

#[tokio::test]
async fn a_peer_that_has_died_without_a_word_is_noticed() {
    let mut fixture = Fixture::start(None).await;
    let frozen = CancellationToken::new();
    let addr = freezing(fixture.callback.addr(), frozen.clone()).await;
    let mut client = WorkerCallbackClient::connect(format!("http://{addr}")).await.unwrap();
    let opening = tokio::spawn(async move { open(&mut client, hello()).await });
    let (_, _to_worker) = fixture.welcome(1).await;
    let _open = within(opening).await.unwrap().unwrap();
    frozen.cancel();
    assert!(matches!(fixture.command().await, Command::StreamClosed(StreamId(1))));
}
