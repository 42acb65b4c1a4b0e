//! A Socket.IO client over WebSocket, by hand: what the stock client in a browser does, without its comfort.

use std::collections::VecDeque;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::DEADLINE;

/// One connected client.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    next_ack: u64,
    events: VecDeque<(String, Value)>,
    /// Its session, which owns what it asks.
    pub session: String,
    /// What opens the session again.
    pub secret: String,
}

impl Socket {
    /// Connects to the master whose page is on `port` of loopback.
    ///
    /// # Panics
    /// When it can't.
    pub async fn connect(port: u16) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("failed to connect");
        tcp.set_nodelay(true).expect("failed to set TCP_NODELAY");
        let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
        let (stream, _) = client_async(url, tcp).await.expect("no WebSocket");
        let (session, secret) = (String::new(), String::new());
        let mut socket = Self { stream, next_ack: 0, events: VecDeque::new(), session, secret };
        assert!(socket.text().await.starts_with("0{"), "no engine.io handshake");
        socket.send("40{}".into()).await;
        assert!(socket.text().await.starts_with("40{"), "not let in");
        socket.session = socket.event("session-id").await.as_str().unwrap_or_default().to_owned();
        socket.secret = socket.event("session-secret").await.as_str().unwrap_or_default().to_owned();
        socket
    }

    /// Sends a packet as it is on the wire.
    ///
    /// # Panics
    /// When it can't.
    pub async fn send(&mut self, text: String) {
        self.stream.send(Message::text(text)).await.expect("failed to send");
    }

    /// The next packet as it is on the wire; pings are answered. Nothing is lost when the future is dropped.
    ///
    /// # Panics
    /// When none comes.
    pub async fn text(&mut self) -> String {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("the master said nothing");
            match next {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3".into()).await,
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => panic!("the connection was closed"),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Emits and waits for the acknowledgement; events that come before it are kept.
    ///
    /// # Panics
    /// When none comes.
    pub async fn ask(&mut self, event: &str, payload: &Value) -> Value {
        let prefix = format!("43{}[", self.next_ack);
        self.send(format!("42{}{}", self.next_ack, json!([event, payload]))).await;
        self.next_ack += 1;
        loop {
            let text = self.text().await;
            if text.starts_with(&prefix) {
                let mut args: Vec<Value> = serde_json::from_str(&text[prefix.len() - 1..]).expect("no list");
                return args.remove(0);
            }
            self.keep(&text);
        }
    }

    fn keep(&mut self, text: &str) {
        let Some(event) = text.strip_prefix("42") else { return };
        let (name, payload): (String, Value) = serde_json::from_str(event).expect("no event");
        if name != "fleet-tick" {
            self.events.push_back((name, payload));
        }
    }

    /// The next event of any name but `fleet-tick`.
    ///
    /// # Panics
    /// When none comes.
    pub async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let text = self.text().await;
            self.keep(&text);
        }
    }

    /// The next event called `name`; others before it are dropped.
    ///
    /// # Panics
    /// When none comes.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let (found, payload) = self.next().await;
            if found == name {
                return payload;
            }
        }
    }
}
