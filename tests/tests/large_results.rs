//! Results much larger than a message pass, up to the bound that is set, and beyond it fail with a word that says so.

use flota_tests::{Node, node::workers_ready};
use serde_json::{Value, json};

const BOUND: usize = 5 * 1024 * 1024;

/// An echo whose result has so many bytes.
fn echo(bytes: usize) -> Value {
    let frame = json!({ "value": "" }).to_string().len();
    json!({"kind": "echo", "payload": {"value": "x".repeat(bytes - frame)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_passes_up_to_the_bound_and_beyond_it_says_why_not() {
    let fleet = Node::up().with("FLOTA_RESULT_MAX", "5MiB").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let small = rest.submit(echo(950_000)).await;
    let large = rest.submit(echo(BOUND)).await;
    let too_large = rest.submit(echo(BOUND + 1)).await;
    for (job, bytes) in [(&small, 950_000), (&large, BOUND)] {
        assert_eq!(rest.completed(job).await["result"].to_string().len(), bytes);
    }
    let failed = rest.ended(&too_large).await;
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("result_too_large")));
    assert!(failed["error"]["message"].as_str().is_some_and(|text| text.contains("FLOTA_RESULT_MAX")), "{failed}");
    let units = rest.units(&too_large).await;
    assert_eq!(units[0]["attempts"].as_array().map(Vec::len), Some(1), "another try would give the same: {units:?}");
    assert_eq!(rest.completed(&rest.echo("after", 0).await).await["result"]["value"], "after");
}
