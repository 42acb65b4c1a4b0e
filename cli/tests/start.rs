//! `flota up`, `flota master` and `flota worker` as processes: what they print, what stops them, how they end.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
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

/// A process whose standard output goes to a file; killed when the test ends before it does.
struct Running {
    child: Child,
    printed: std::path::PathBuf,
}

impl Running {
    fn start(directory: &Path, args: &[&str]) -> Self {
        let printed = directory.join("printed");
        let mut command = flota(directory, args);
        command.stdout(fs::File::create(&printed).unwrap()).stderr(fs::File::create(directory.join("log")).unwrap());
        Self { child: command.spawn().unwrap(), printed }
    }

    /// What it printed, once that holds `text`.
    fn prints(&mut self, text: &str) -> String {
        let end = clock::instant() + DEADLINE;
        loop {
            let printed = fs::read_to_string(&self.printed).unwrap();
            if printed.contains(text) {
                return printed;
            }
            let log = fs::read_to_string(self.printed.with_file_name("log")).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {printed}{log}");
            assert!(clock::instant() < end, "no '{text}' in time: {printed}{log}");
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
