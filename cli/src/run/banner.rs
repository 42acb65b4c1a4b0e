//! What `flota up` and `flota master` print when they run: where everything is, and how to watch it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::failure::Failure;
use crate::output::Out;

/// Where everything is.
pub struct Banner<'a> {
    /// As a client on this machine reaches it.
    pub web: SocketAddr,
    /// Plain `host:port` that workers are told.
    pub grpc: String,
    /// `mqtt://…`
    pub broker: &'a str,
    /// Host and port of the broker as a client on this machine reaches it.
    pub broker_address: (String, u16),
    /// The account at the broker.
    pub broker_user: Option<&'a str>,
    pub topic_root: &'a str,
    pub data_dir: &'a Path,
    /// The worker within the process, and what it takes.
    pub worker: Option<(String, String)>,
    /// What answers questions.
    pub ai: Option<String>,
    /// `(what, wanted port, port)` of those that were taken.
    pub moved: Vec<(&'static str, u16, u16)>,
    /// Other machines reach gRPC, but are told an address that only this one reaches.
    pub tells_loopback: bool,
    /// The web port is the one that clients try by themselves.
    pub usual_web: bool,
}

impl Banner<'_> {
    /// For programs, one line.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "web_url": format!("http://{}", self.web), "grpc_endpoint": self.grpc, "mqtt_url": self.broker,
            "topic_root": self.topic_root, "data_dir": self.data_dir, "worker_id": self.worker.as_ref().map(|(id, _)| id),
        })
    }

    /// Says it the way that is wanted.
    pub fn print(&self, out: &Out) -> Result<(), Failure> {
        if out.json { out.json(&self.json()) } else { out.piece(&self.text()) }
    }

    /// The text, ending in a line break.
    pub fn text(&self) -> String {
        let url = format!("http://{}", self.web);
        let mut rows = vec![
            ("page", url.clone()),
            ("API", format!("{url}/api/v1, described in {url}/api/v1/openapi.json")),
            ("gRPC", format!("{}, where workers report", self.grpc)),
            ("MQTT", format!("{}, topics below {}/", self.broker, self.topic_root)),
        ];
        rows.extend(self.worker.as_ref().map(|(id, slots)| ("worker", format!("{id} with slots {slots}"))));
        rows.extend(self.ai.clone().map(|ai| ("AI", ai)));
        rows.push(("data", self.data_dir.display().to_string()));
        let mut text = format!("Flota {} runs. Ctrl-C stops it.\n\n", env!("CARGO_PKG_VERSION"));
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:8} {value}");
        }
        for (what, wanted, port) in &self.moved {
            let _ = writeln!(text, "\n  Port {wanted} is taken: {what} is on {port} instead.");
        }
        if self.tells_loopback {
            let _ = writeln!(
                text,
                "\n  Workers on other machines are told to report to {}, which they can't reach:\n  set \
                 FLOTA_GRPC_ADVERTISE to this machine's name and port as they see it.",
                self.grpc
            );
        }
        let _ = writeln!(text, "\nWatch it:  {}", self.watch());
        let client = if self.usual_web { "flota".into() } else { format!("FLOTA_URL={url} flota") };
        let _ = writeln!(text, "Use it:    {client} ask 'What is a fleet?'");
        text
    }

    /// The line to watch the fleet by.
    fn watch(&self) -> String {
        let (host, port) = &self.broker_address;
        let mut line = "mosquitto_sub".to_owned();
        if host != "127.0.0.1" && host != "localhost" {
            let _ = write!(line, " -h {host}");
        }
        if *port != 1883 {
            let _ = write!(line, " -p {port}");
        }
        if let Some(user) = self.broker_user {
            let _ = write!(line, " -u '{user}' -P \"$FLOTA_MQTT_PASSWORD\"");
        }
        if self.broker.starts_with("mqtts:") {
            line.push_str(" --tls-use-os-certs");
        }
        let _ = write!(line, " -v -t '{0}/logs' -t '{0}/workers/status'", self.topic_root);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner() -> Banner<'static> {
        Banner {
            web: "127.0.0.1:8888".parse().unwrap(),
            grpc: "127.0.0.1:50051".into(),
            broker: "mqtt://127.0.0.1:1883",
            broker_address: ("127.0.0.1".into(), 1883),
            broker_user: None,
            topic_root: "flota",
            data_dir: Path::new("/d"),
            worker: Some(("w-1".into(), "ai 64".into())),
            ai: None,
            moved: Vec::new(),
            tells_loopback: false,
            usual_web: true,
        }
    }

    #[test]
    fn the_usual_start_has_short_lines_to_copy() {
        let text = banner().text();
        assert!(text.contains("\nWatch it:  mosquitto_sub -v -t 'flota/logs' -t 'flota/workers/status'\n"), "{text}");
        assert!(text.contains("http://127.0.0.1:8888\n") && text.contains("Use it:    flota ask"), "{text}");
        assert!(!text.contains("is taken"));
    }

    #[test]
    fn moved_ports_are_said_and_stand_in_the_lines_to_copy() {
        let text = Banner {
            web: "127.0.0.1:40001".parse().unwrap(),
            broker: "mqtt://127.0.0.1:40002",
            broker_address: ("127.0.0.1".into(), 40002),
            moved: vec![("the page", 8888, 40001), ("the broker", 1883, 40002)],
            usual_web: false,
            ..banner()
        }
        .text();
        assert!(text.contains("Port 8888 is taken: the page is on 40001 instead."), "{text}");
        assert!(
            text.contains("mosquitto_sub -p 40002 ") && text.contains("FLOTA_URL=http://127.0.0.1:40001 flota ask")
        );
    }

    #[test]
    fn an_endpoint_that_others_cannot_reach_is_said() {
        let text = Banner { tells_loopback: true, ..banner() }.text();
        assert!(text.contains("FLOTA_GRPC_ADVERTISE"), "{text}");
        assert!(!banner().text().contains("FLOTA_GRPC_ADVERTISE"));
    }

    #[test]
    fn the_password_is_not_in_the_line() {
        let text = Banner { broker_user: Some("ana"), ..banner() }.text();
        assert!(text.contains("-u 'ana' -P \"$FLOTA_MQTT_PASSWORD\""), "{text}");
    }
}
