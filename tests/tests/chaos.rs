//! The chaos harness for some seconds: everything breaks, nothing is lost, nothing counts twice. `make chaos` runs it for
//! minutes.

use flota_tests::chaos::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_no_job_is_lost_or_counted_twice() {
    let report = run(Plan::short(rand::random())).await.expect("the fleet starts");
    println!("{report}");
    assert!(report.good(), "{report}");
    assert!(report.verdict.accepted > 100, "too little was submitted to prove anything: {report}");
    assert!(report.faults.values().sum::<u64>() >= 8, "too little went wrong to prove anything: {report}");
}
