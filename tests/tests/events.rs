//! The event log of a job over SSE: complete, in order, resumable.

use flota_tests::{Node, node::workers_ready, sse};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_job_come_in_order_and_the_stream_ends_with_it() {
    let mut fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let job =
        rest.submit(json!({"kind": "echo", "payload": {"value": 1, "sleep_ms": 500, "fail": {"times": 1}}})).await;
    let (status, events) = sse::read(&rest, &job, None, usize::MAX).await;
    assert_eq!(status, 200);
    let states: Vec<&str> = events.iter().map(|e| e.name.as_str()).filter(|name| *name != "progress").collect();
    let tried = |tail: &str| states.windows(3).any(|w| w == ["assigned", "computing", tail]);
    assert!(tried("scheduled") && tried("completed"), "{states:?}");
    assert_eq!(states.last(), Some(&"completed"));
    assert!(events.is_sorted_by(|a, b| a.id < b.id), "{events:?}");
    for event in &events {
        assert_eq!(event.data["seq"].as_u64(), Some(event.id));
        assert_eq!(event.data["type"], event.name.as_str());
        assert!(event.data["timestamp"].is_u64() && event.data["attempt"].is_u64(), "{event:?}");
    }
    assert_eq!(events.last().map(|e| e.data["attempt"].as_u64()), Some(Some(2)));

    let middle = events[events.len() / 2].id;
    let rest_of_it = |all: &[sse::Event]| all.iter().map(|e| e.id).filter(|id| *id > middle).collect::<Vec<_>>();
    let (_, resumed) = sse::read(&rest, &job, Some(middle), usize::MAX).await;
    assert_eq!(resumed.iter().map(|e| e.id).collect::<Vec<_>>(), rest_of_it(&events));
    let last = events.last().map(|e| e.id);
    assert_eq!(sse::read(&rest, &job, last, 1).await.0, 204, "nothing more to send");

    // The changes of state are in the store.
    fleet.kill();
    fleet.start_again().await;
    let (_, kept) = sse::read(&rest, &job, None, usize::MAX).await;
    let kept: Vec<&str> = kept.iter().map(|e| e.name.as_str()).filter(|name| *name != "progress").collect();
    assert_eq!(kept, states);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_cut_off_goes_on_where_it_was() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let job = rest.echo("x", 1_500).await;
    let (_, first) = sse::read(&rest, &job, None, 2).await;
    let last = first.last().map(|e| e.id);
    let (_, second) = sse::read(&rest, &job, last, usize::MAX).await;
    assert!(second.first().map(|e| e.id) > last, "{first:?} {second:?}");
    assert_eq!(second.last().map(|e| e.name.as_str()), Some("completed"));
}
