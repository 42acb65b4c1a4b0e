//! From a [`Config`] to what rumqttc needs, and from its errors to sentences that say what to do.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::tokio_rustls::rustls::{self, RootCertStore, crypto};
use rumqttc::{
    ConnectReturnCode, ConnectionError, LastWill, MqttOptions, QoS, SubscribeFilter, TlsConfiguration, Transport,
};
use secrecy::ExposeSecret;
use thiserror::Error;
use url::Url;

use super::outbox::PACKET_IDS;
use super::{Config, PACKET_BYTES_MAX};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Why a configuration can never work.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not a broker's address.
    #[error("'{url}' is no address of an MQTT broker ({reason}): give mqtt://host:1883 or mqtts://host:8883")]
    Url {
        /// As given, without what may be a secret.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A subscription that no broker takes.
    #[error("'{0}' is no MQTT topic filter")]
    Filter(String),
    /// TLS cannot be set up.
    #[error("TLS for {url} cannot be set up: {reason}")]
    Tls {
        /// The broker.
        url: String,
        /// Why not.
        reason: String,
    },
}

/// A client id that no other client has: `prefix-` and 16 random hex digits.
#[must_use]
pub fn random_client_id(prefix: &str) -> String {
    format!("{prefix}-{:016x}", rand::random::<u64>())
}

pub(super) fn options(config: &Config) -> Result<MqttOptions, ConfigError> {
    let url = parse(&config.url)?;
    let tls = url.scheme() == "mqtts";
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
    let mut options = MqttOptions::new(&config.client_id, host, port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_session(config.clean_session)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
        .set_inflight(PACKET_IDS);
    if let Some(user) = &config.user {
        let password = config.password.as_ref().map_or("", |password| password.expose_secret());
        options.set_credentials(user, password);
    }
    if let Some(will) = &config.will {
        options.set_last_will(LastWill::new(&will.topic, will.payload.to_vec(), QoS::AtLeastOnce, will.retain));
    }
    if tls {
        options.set_transport(Transport::tls_with_config(tls_config(&config.url)?));
    }
    Ok(options)
}

fn parse(text: &str) -> Result<Url, ConfigError> {
    let bad = |url: &str, reason: &str| ConfigError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let url = Url::parse(text).map_err(|error| bad(text, &error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            &format!("{}://…@{}", url.scheme(), url.host_str().unwrap_or_default()),
            "user and password belong in FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD",
        ));
    }
    if !matches!(url.scheme(), "mqtt" | "mqtts") {
        return Err(bad(text, "the scheme is neither mqtt nor mqtts"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad(text, "it names no host"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(bad(text, "nothing may follow the port"));
    }
    Ok(url)
}

/// Built by us: rumqttc's default panics where no certificates are installed or two crypto providers are compiled in.
fn tls_config(url: &str) -> Result<TlsConfiguration, ConfigError> {
    let failed = |reason: String| ConfigError::Tls { url: url.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(failed("no root certificates found: install ca-certificates or set SSL_CERT_FILE".into()));
    }
    let provider = crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(crypto::aws_lc_rs::default_provider()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

pub(super) fn filters(config: &Config) -> Result<Vec<SubscribeFilter>, ConfigError> {
    let filter = |subscription: &super::Subscription| {
        let qos = if subscription.reliable { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        if rumqttc::valid_filter(&subscription.filter) {
            Ok(SubscribeFilter::new(subscription.filter.clone(), qos))
        } else {
            Err(ConfigError::Filter(subscription.filter.clone()))
        }
    };
    config.subscriptions.iter().map(filter).collect()
}

/// A sentence for people: which broker, what happened, what to do. Who goes on trying says so.
pub(super) fn explain(config: &Config, was_connected: bool, error: &ConnectionError) -> String {
    let url = &config.url;
    match error {
        ConnectionError::ConnectionRefused(code) => refused(config, *code),
        ConnectionError::Tls(error) => {
            format!("no TLS connection to the MQTT broker at {url}: {error}; check its certificate and the port")
        }
        error if was_connected => {
            format!("lost the connection to the MQTT broker at {url} ({})", cause(error))
        }
        ConnectionError::Io(error) => {
            format!("cannot reach the MQTT broker at {url}: {error}; start it, or set FLOTA_MQTT_URL to where it is")
        }
        ConnectionError::NetworkTimeout => {
            format!("no answer from the MQTT broker at {url} within 5 s; check FLOTA_MQTT_URL and firewalls")
        }
        error => format!(
            "no MQTT connection to {url} ({}); is it an MQTT 3.1.1 broker, and is its TLS setting that of the URL?",
            cause(error)
        ),
    }
}

fn refused(config: &Config, code: ConnectReturnCode) -> String {
    let Config { url, client_id, user, .. } = config;
    let user = user.as_deref().map_or("without a user".to_owned(), |user| format!("as user '{user}'"));
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => format!(
            "the MQTT broker at {url} does not let us in {user}: set FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD to an account that it knows"
        ),
        ConnectReturnCode::BadClientId => format!("the MQTT broker at {url} refuses the client id '{client_id}'"),
        ConnectReturnCode::ServiceUnavailable => format!("the MQTT broker at {url} is not available"),
        ConnectReturnCode::RefusedProtocolVersion => format!("the MQTT broker at {url} does not speak MQTT 3.1.1"),
        ConnectReturnCode::Success => format!("the MQTT broker at {url} closed the connection"),
    }
}

fn cause(error: &ConnectionError) -> String {
    match error {
        ConnectionError::MqttState(rumqttc::StateError::Io(error)) => error.to_string(),
        ConnectionError::MqttState(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        Config {
            url: url.into(),
            user: None,
            password: None,
            client_id: "test".into(),
            clean_session: true,
            will: None,
            subscriptions: Vec::new(),
        }
    }

    #[test]
    fn addresses_are_taken_or_refused_with_a_reason() {
        let address = |url| options(&config(url)).map(|options| options.broker_address()).map_err(|e| e.to_string());
        assert_eq!(address("mqtt://localhost"), Ok(("localhost".into(), 1883)));
        assert_eq!(address("mqtt://[::1]:99/"), Ok(("[::1]".into(), 99)));
        for (bad, why) in [
            ("localhost:1883", "neither mqtt nor mqtts"),
            ("http://localhost", "neither mqtt nor mqtts"),
            ("mqtt://", "no host"),
            ("mqtt://h/path", "nothing may follow"),
            ("", "relative URL"),
        ] {
            let error = address(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_without_repeating_it() {
        let error = options(&config("mqtt://me:hunter2@host")).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains("FLOTA_MQTT_PASSWORD") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let mut config = config("mqtt://h");
        config.subscriptions = vec![super::super::Subscription::reliable("a/#/b".into())];
        assert!(filters(&config).is_err_and(|error| error.to_string().contains("a/#/b")));
    }
}
