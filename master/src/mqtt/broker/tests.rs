use flota_common::mqtt::{Client, Config, Event, Events, Message, Subscription};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn client(addr: SocketAddr, topic: &str) -> (Client, Events) {
    let config = Config {
        url: format!("mqtt://{addr}"),
        user: None,
        password: None,
        client_id: topic.to_owned(),
        clean_session: true,
        will: None,
        subscriptions: vec![Subscription::reliable(topic.to_owned())],
    };
    Client::start(config, CancellationToken::new()).expect("a valid configuration")
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(DEADLINE, events.recv()).await.expect("in time").expect("the client lives")
}

/// A connection that is gone at the router is reported ready: rumqttd panics.
async fn kill_router(server: &Server) {
    let (mut to_router, from_router, _) = server.house().connect("victim", true).expect("the router lives");
    let farewell = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
    to_router.send(Packet::Disconnect(farewell, None)).await.expect("the router lives");
    from_router.ready().expect("the router lives");
}

#[tokio::test]
async fn a_broker_whose_router_has_died_is_started_anew_on_the_same_port_and_clients_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("possible");
    let addr = listener.local_addr().expect("bound");
    let server = Server::start(&listener, None).expect("a thread");
    let (client, mut events) = client(addr, "t");
    assert!(matches!(next(&mut events).await, Event::Connected { .. }));
    kill_router(&server).await;
    let stop = CancellationToken::new();
    let watchdog = tokio::spawn(watch(listener, addr, None, server, stop.clone()));
    while !matches!(next(&mut events).await, Event::Connected { .. }) {}
    let message = Message { topic: "t".into(), payload: "alive".into(), retain: false };
    tokio::time::timeout(DEADLINE, client.publish_acknowledged(message)).await.expect("in time").expect("acknowledged");
    while !matches!(next(&mut events).await, Event::Message { payload, .. } if payload == "alive") {}
    stop.cancel();
    watchdog.await.expect("no panic");
}

#[tokio::test]
async fn a_live_broker_passes_the_probe_and_a_silent_one_does_not() {
    let broker = Broker::start(BrokerConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        user: Some("me".into()),
        password: Some("secret".to_owned().into()),
    })
    .expect("it starts");
    let account = |password: &str| Account { user: "me".into(), password: password.to_owned().into() };
    assert!(probe::admitted(broker.addr(), Some(&account("secret"))).await);
    assert!(!probe::admitted(broker.addr(), Some(&account("Secret"))).await);
    assert!(!probe::admitted(broker.addr(), None).await);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    assert!(!probe::admitted(silent.local_addr().expect("bound"), None).await);
}
