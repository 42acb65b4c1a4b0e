//! The tracked client over TLS, against a real Mosquitto with a certificate of its own authority.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use flota_common::mqtt::Event;
use support::*;
use tempfile::TempDir;

const URL: &str = "FLOTA_TEST_MQTTS_URL";

fn openssl(dir: &TempDir, args: &[&str]) {
    let output = Command::new("openssl").current_dir(dir.path()).args(args).output();
    let output = output.expect("openssl is needed for this test: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn certificate() -> TempDir {
    let dir = TempDir::new().unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"];
    let own = ["req", "-x509", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"];
    let extensions = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&dir, &[&own[..], &key, &extensions].concat());
    // Mosquitto started by root reads its files as another user.
    for file in ["key.pem", "cert.pem"] {
        let path = dir.path().join(file);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// Runs the test `name` of this file in a process of its own that trusts only `authority`: the environment of this one
/// belongs to all its tests.
fn in_own_process(name: &str, url: &str, authority: &std::path::Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_FILE", authority)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_taken_and_another_refused_with_a_reason() {
    let (ours, other) = (certificate(), certificate());
    let file = |name: &str| ours.path().join(name).display().to_string();
    let tls = format!("allow_anonymous true\ncertfile {}\nkeyfile {}", file("cert.pem"), file("key.pem"));
    let broker = Mosquitto::start(&tls).await;
    let url = format!("mqtts://localhost:{}", broker.port);
    in_own_process("trusted", &url, &ours.path().join("cert.pem"));
    in_own_process("untrusted", &url, &other.path().join("cert.pem"));
}

#[tokio::test]
#[ignore = "run by the test above with its environment"]
async fn trusted() {
    let (client, mut events) = client(&std::env::var(URL).unwrap(), "tls", &["t"]);
    connected(&mut events).await;
    client.publish_acknowledged(message("t", "over TLS")).await.unwrap();
    assert_eq!(received(&mut events).await.1, "over TLS");
}

#[tokio::test]
#[ignore = "run by the test above with its environment"]
async fn untrusted() {
    let (_client, mut events) = client(&std::env::var(URL).unwrap(), "tls", &["t"]);
    let Event::Disconnected { reason } = next(&mut events).await else { panic!("it must not be trusted") };
    assert!(reason.contains("certificate") && reason.contains("mqtts://localhost"), "{reason}");
}
