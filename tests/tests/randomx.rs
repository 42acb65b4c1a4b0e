//! The reference vectors of RandomX through the whole fleet: REST, queue, MQTT, worker, gRPC, store, REST.

use flota_tests::{Node, node::workers_ready};
use serde_json::json;

const KEY_0: &str = "test key 000";
const KEY_1: &str = "test key 001";
const A: &str = "This is a test";
const B: &str = "Lorem ipsum dolor sit amet";
const C: &str = "sed do eiusmod tempor incididunt ut labore et dolore magna aliqua";
const E: &str = "0b0b98bea7e805e0010a2126d287a2a0cc833d312cb786385a7c2f9de69d25537f584a9bc9977b00000000666fd8753bf61a8631f12984e3fd44f4014eca629276817b56f32e9b68bd82f416";

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_computes_the_reference_hashes() {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let cases = [
        (
            KEY_0,
            vec![hex(A), hex(B), hex(C)],
            vec![
                "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f",
                "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969",
                "c36d4ed4191e617309867ed66a443be4075014e2b061bcdaf9ce7b721d2b77a8",
            ],
        ),
        (
            KEY_1,
            vec![hex(C), E.to_owned()],
            vec![
                "e9ff4503201c0c2cca26d285c93ae883f9b1d30c9eb240b820756f2d5a7905fc",
                "c56414121acda1713c2f2a819d8ae38aed7c80c35c2a769298d34f03833cd5f1",
            ],
        ),
    ];
    for (key, inputs, hashes) in cases {
        let job = rest.submit(json!({"kind": "randomx.hash", "payload": {"key": hex(key), "inputs": inputs}})).await;
        let result = rest.completed(&job).await["result"].clone();
        assert_eq!(result, json!({"hashes": hashes, "mode": "light"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_hashes_text_and_hex() {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    workers_ready(&fleet.rest(), 1).await;
    let run = |arguments: Vec<String>| async {
        let mut command = tokio::process::Command::from(fleet.cli());
        let output = command.arg("hash").args(arguments).output().await.expect("failed to start flota hash");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let text = run(vec!["--key".into(), KEY_0.into(), A.into()]).await;
    assert!(text.contains("639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"), "{text}");
    let hexes = run(vec!["--hex".into(), "--key".into(), hex(KEY_1), E.into()]).await;
    assert!(hexes.contains("c56414121acda1713c2f2a819d8ae38aed7c80c35c2a769298d34f03833cd5f1"), "{hexes}");
}
