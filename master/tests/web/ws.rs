//! A Socket.IO client over WebSocket, by hand: what the stock client does, without its comfort.

use std::collections::VecDeque;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::server::{DEADLINE, Server};

pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    next_ack: u64,
    events: VecDeque<(String, Value)>,
    pub id: String,
    pub secret: String,
}

impl Socket {
    pub async fn connect(server: &Server) -> Self {
        let mut socket = Self::open(server, &json!({}), None).await.unwrap();
        socket.id = socket.event("session-id").await.as_str().unwrap().to_owned();
        socket.secret = socket.event("session-secret").await.as_str().unwrap().to_owned();
        socket
    }

    /// Connects with `auth`; the error is what `connect_error` says.
    pub async fn open(server: &Server, auth: &Value, origin: Option<&str>) -> Result<Self, Value> {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", server.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let (stream, _) = client_async(request, tcp).await.unwrap();
        let (id, secret) = (String::new(), String::new());
        let mut socket = Self { stream, next_ack: 0, events: VecDeque::new(), id, secret };
        assert!(socket.text().await.unwrap().starts_with("0{"), "no engine.io handshake");
        socket.send(format!("40{auth}")).await;
        let answer = socket.text().await.unwrap();
        match answer.strip_prefix("44") {
            Some(error) => Err(serde_json::from_str(error).unwrap()),
            None => {
                assert!(answer.starts_with("40{"), "{answer}");
                Ok(socket)
            }
        }
    }

    async fn send(&mut self, text: String) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// The next packet that is no ping; `None` when the connection was closed.
    async fn text(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.stream.next()).await.expect("the server said nothing");
            match next {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3".into()).await,
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub async fn emit(&mut self, event: &str, payload: &Value) {
        self.send(format!("42{}", json!([event, payload]))).await;
    }

    pub async fn raw(&mut self, packet: &str) {
        self.send(packet.to_owned()).await;
    }

    /// Emits and waits for the acknowledgement; events that come before it are kept.
    pub async fn ask(&mut self, event: &str, payload: &Value) -> Value {
        let ack = self.next_ack;
        self.next_ack += 1;
        self.send(format!("42{ack}{}", json!([event, payload]))).await;
        let answer = tokio::time::timeout(DEADLINE, self.wait_ack(ack)).await;
        answer.unwrap_or_else(|_| panic!("{event} was not acknowledged"))
    }

    async fn wait_ack(&mut self, ack: u64) -> Value {
        let prefix = format!("43{ack}[");
        loop {
            let text = self.text().await.expect("the connection was closed");
            if text.starts_with(&prefix) {
                let mut args: Vec<Value> = serde_json::from_str(&text[prefix.len() - 1..]).unwrap();
                return args.remove(0);
            }
            self.keep(&text);
        }
    }

    fn keep(&mut self, text: &str) {
        let Some(event) = text.strip_prefix("42") else { return };
        let (name, payload): (String, Value) = serde_json::from_str(event).unwrap();
        if name != "fleet-tick" || self.events.iter().all(|(kept, _)| kept != "fleet-tick") {
            self.events.push_back((name, payload));
        }
    }

    /// The next event of any name but `fleet-tick`.
    pub async fn next(&mut self) -> (String, Value) {
        tokio::time::timeout(DEADLINE, self.wait_any()).await.expect("no event came")
    }

    async fn wait_any(&mut self) -> (String, Value) {
        loop {
            let at = self.events.iter().position(|(name, _)| name != "fleet-tick");
            if let Some(event) = at.and_then(|at| self.events.remove(at)) {
                return event;
            }
            let text = self.text().await.expect("the connection was closed");
            self.keep(&text);
        }
    }

    /// The next event called `name`; others before it are dropped.
    pub async fn event(&mut self, name: &str) -> Value {
        let event = tokio::time::timeout(DEADLINE, self.wait_for(name)).await;
        event.unwrap_or_else(|_| panic!("no {name} came"))
    }

    async fn wait_for(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|(kept, _)| kept == name) {
                let (_, payload) = self.events.remove(at).unwrap();
                self.events.drain(..at);
                return payload;
            }
            let text = self.text().await.expect("the connection was closed");
            self.keep(&text);
        }
    }

    /// Every event up to now: an event that is unknown is answered after all that came before it.
    pub async fn settled(&mut self) -> Vec<(String, Value)> {
        let error = self.ask("no-such-event", &Value::Null).await;
        assert_eq!(error["error"]["code"], "unknown_event");
        self.events.drain(..).filter(|(name, _)| name != "fleet-tick").collect()
    }

    /// Whether the server closed or disconnected this socket.
    pub async fn is_cut_off(&mut self) -> bool {
        while let Some(text) = self.text().await {
            if text == "41" {
                return true;
            }
            self.keep(&text);
        }
        true
    }

    pub async fn close(mut self) {
        self.stream.close(None).await.unwrap();
    }
}
