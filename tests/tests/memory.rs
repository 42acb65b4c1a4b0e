//! What an idle fleet and a queued job cost in memory.

use flota_tests::{Node, node::workers_ready};
use serde_json::json;

const IDLE_MIB_MAX: u64 = 150;
const JOB_BYTES_MAX: u64 = 2_048;
const QUEUED: usize = 200_000;
const BATCH: usize = 10_000;

fn resident_kib(fleet: &Node) -> u64 {
    fleet.process().resident_kib().unwrap_or_else(|| panic!("its memory is not to be read: {}", fleet.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_fleet_is_small_and_so_is_a_job_that_waits() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    rest.completed(&rest.echo("warm", 0).await).await;
    let idle = resident_kib(&fleet);
    println!("idle: {} MiB", idle / 1024);
    assert!(idle < IDLE_MIB_MAX * 1024, "idle it takes {idle} KiB");

    let job = json!({"kind": "echo", "payload": {"value": "waits"}, "requires": {"worker_id": "nobody"}});
    for _ in 0..QUEUED / BATCH {
        rest.batch(vec![job.clone(); BATCH]).await;
    }
    let fleet_now = rest.get("/fleet").await.body;
    assert_eq!(fleet_now["queue"]["depth"].as_u64(), u64::try_from(QUEUED).ok(), "{fleet_now}");
    let cost = resident_kib(&fleet).saturating_sub(idle) * 1024 / QUEUED as u64;
    println!("a queued job: {cost} bytes");
    assert!(cost < JOB_BYTES_MAX, "a queued job takes {cost} bytes");
}
