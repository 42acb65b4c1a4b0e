//! `flota up`, `flota master` and `flota worker` as processes: what they print, what stops them, how they end.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use flota_common::clock;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// `flota ARGS` in a directory of its own, on free ports unless said otherwise.
fn flota(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flota"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLOTA_") || name == "GEMINI_API_KEY" {
            command.env_remove(name);
        }
    }
    for name in ["FLOTA_WEB_LISTEN", "FLOTA_GRPC_LISTEN", "FLOTA_MQTT_LISTEN"] {
        command.env(name, "127.0.0.1:0");
    }
    command.args(args).env("HOME", directory).env_remove("XDG_DATA_HOME").current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(mut command: Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

fn text_of(mut command: Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// A process whose output goes to the files `printed` and `log`; killed when the test ends before it does.
struct Running {
    child: Child,
    directory: PathBuf,
}

impl Running {
    fn start(directory: &Path, args: &[&str]) -> Self {
        fs::create_dir_all(directory).unwrap();
        let file = |name| fs::File::create(directory.join(name)).unwrap();
        let mut command = flota(directory, args);
        command.stdout(file("printed")).stderr(file("log"));
        Self { child: command.spawn().unwrap(), directory: directory.to_owned() }
    }

    /// What it printed, once that holds `text`.
    fn prints(&mut self, text: &str) -> String {
        self.writes("printed", text)
    }

    /// What the file `name` holds, once that holds `text`.
    fn writes(&mut self, name: &str, text: &str) -> String {
        let end = clock::instant() + DEADLINE;
        let read = |name| fs::read_to_string(self.directory.join(name)).unwrap();
        loop {
            let written = read(name);
            if written.contains(text) {
                return written;
            }
            let all = || format!("{}{}", read("printed"), read("log"));
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", all());
            assert!(clock::instant() < end, "no '{text}' in time: {}", all());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    fn exit_code(&mut self) -> i32 {
        let end = clock::instant() + DEADLINE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code().unwrap(),
                None => assert!(clock::instant() < end, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address<'a>(printed: &'a str, scheme: &str) -> &'a str {
    let at = printed.find(scheme).unwrap();
    printed[at..].split([' ', ',', '\n']).next().unwrap()
}

#[test]
fn up_prints_where_everything_is_does_a_job_and_ends_in_order() {
    let home = TempDir::new().unwrap();
    let mut up = Running::start(home.path(), &["up"]);
    let printed = up.prints("Use it:");
    let (url, broker) = (address(&printed, "http://"), address(&printed, "mqtt://"));
    let port = broker.rsplit(':').next().unwrap();
    assert!(printed.contains(&format!("mosquitto_sub -p {port} -v -t 'flota/logs'")), "{printed}");
    let mut job = flota(home.path(), &["submit", "echo", "--payload", "{\"value\": 7}", "--wait", "--url", url]);
    let done = job.output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "{\"value\":7}\n", "{}", String::from_utf8_lossy(&done.stderr));
    up.signal("TERM");
    assert_eq!(up.exit_code(), 0);
}

#[test]
fn up_says_where_it_is_to_programs_too() {
    let home = TempDir::new().unwrap();
    let mut up = Running::start(home.path(), &["up", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&up.prints("}\n")).unwrap();
    let (code, text) = ended(flota(home.path(), &["fleet", "--url", said["web_url"].as_str().unwrap()]));
    assert_eq!(code, 0, "{text}");
    let (code, text) =
        ended(flota(home.path(), &["logs", "--for", "1s", "--mqtt-url", said["mqtt_url"].as_str().unwrap()]));
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let home = TempDir::new().unwrap();
    let mut up = Running::start(home.path(), &["up"]);
    let printed = up.prints("Use it:");
    let payload = r#"{"value": 1, "sleep_ms": 3600000}"#;
    let url = address(&printed, "http://");
    let id = text_of(flota(home.path(), &["submit", "echo", "--payload", payload, "--url", url]));
    Running::start(&home.path().join("client"), &["jobs", "watch", id.trim(), "--url", url]).prints("computing");
    up.signal("INT");
    up.writes("log", "once more to end at once");
    up.signal("INT");
    assert_eq!(up.exit_code(), 130);
}

#[test]
fn ctrl_c_while_an_answer_comes_cancels_the_question() {
    let home = TempDir::new().unwrap();
    let mut up = Running::start(home.path(), &["up"]);
    let printed = up.prints("Use it:");
    let url = address(&printed, "http://");
    let client = home.path().join("client");
    let mut ask = Running::start(&client, &["ask", "--stream", "--model", "demo", "--url", url, "Hello?"]);
    ask.prints("No AI");
    ask.signal("INT");
    assert_eq!(ask.exit_code(), 130);
    let listed = text_of(flota(home.path(), &["jobs", "--url", url]));
    assert!(listed.contains("cancelled"), "{listed}");
}

#[test]
fn a_second_start_on_the_same_data_is_refused_and_the_first_goes_on() {
    let home = TempDir::new().unwrap();
    let mut up = Running::start(home.path(), &["up"]);
    let printed = up.prints("Use it:");
    let (code, text) = ended(flota(home.path(), &["up"]));
    assert!(code == 2 && text.contains("runs already") && text.contains("FLOTA_DATA_DIR"), "{text}");
    let (code, text) = ended(flota(home.path(), &["worker", "--mqtt-url", address(&printed, "mqtt://")]));
    assert!(code == 2 && text.contains("FLOTA_WORKER_ID="), "{text}");
    let (code, _) = ended(flota(home.path(), &["healthcheck", "--ready", "--url", address(&printed, "http://")]));
    assert_eq!(code, 0);
    up.signal("INT");
    assert_eq!(up.exit_code(), 0);
}

#[test]
fn a_worker_waits_for_its_broker_and_ends_at_once_when_told_to() {
    let home = TempDir::new().unwrap();
    let mut worker = Running::start(home.path(), &["worker", "--mqtt-url", "mqtt://127.0.0.1:1", "--worker-id", "w-1"]);
    worker.prints("worker w-1 at the broker mqtt://127.0.0.1:1");
    worker.signal("INT");
    assert_eq!(worker.exit_code(), 0);
}

#[test]
fn a_port_that_was_set_and_is_taken_stops_the_start() {
    let home = TempDir::new().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (flag, variable) in [
        ("--web-listen", "FLOTA_WEB_LISTEN"),
        ("--grpc-listen", "FLOTA_GRPC_LISTEN"),
        ("--mqtt-listen", "FLOTA_MQTT_LISTEN"),
    ] {
        let (code, text) = ended(flota(home.path(), &["up", flag, &taken]));
        assert!(code == 2 && text.contains(&taken) && text.contains(variable), "{flag}: {text}");
    }
}

#[test]
fn what_cannot_start_says_why_before_it_listens() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    let refused = |args: &[&str], expected: &str| {
        let (code, text) = ended(flota(home.path(), args));
        assert!(code == 2 && text.contains(expected), "{args:?}: {code} {text}");
    };
    refused(&["up", "--web-listen", "0.0.0.0:0"], "set FLOTA_TOKEN");
    refused(&["up", "--mqtt-listen", "0.0.0.0:0"], "set FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD");
    refused(&["up", "--data-dir", "file/sub"], "file/sub");
    refused(&["up", "--retention-age", "soon"], "--retention-age = 'soon' (flags): must be a number with");
    refused(&["worker", "--mqtt-url", "embedded"], "set FLOTA_MQTT_URL");
    refused(&["worker", "--worker-slots", "randomx=0,ai=0,echo=0"], "slots");
    fs::write(home.path().join("flota.toml"), "web_port = 1").unwrap();
    refused(&["master"], "web_port (flota.toml): there is no such setting");
}

#[test]
fn a_damaged_store_is_named_and_left_alone() {
    let home = TempDir::new().unwrap();
    let store = home.path().join("s.db");
    fs::write(&store, "this is no database, not even a small one").unwrap();
    let (code, text) = ended(flota(home.path(), &["up", "--store-url", &format!("sqlite:{}", store.display())]));
    assert!(code != 0 && text.contains("s.db"), "{text}");
    assert_eq!(fs::read_to_string(&store).unwrap(), "this is no database, not even a small one");
}
