//! What the operator says of a source: parsed, checked, and split into what may be shown and what may not.

use flota_proto::kinds::{FieldError, object, parse};
use flota_proto::sources::{MonerodConfig, SourceKind, StratumConfig};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;

use super::monerod::address;
use super::stratum;

/// Of jobs of sources, unless the operator says otherwise: what people wait for goes first.
pub const PRIORITY: u8 = 2;
const ID_CHARS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 512;
const POOLS_MAX: usize = 16;

/// The configuration of a source.
#[derive(Clone, Debug)]
pub enum Config {
    /// Solo mining.
    Monerod(MonerodConfig),
    /// Mining for pools.
    Stratum(StratumConfig),
}

impl Config {
    /// Parses and checks what a client sent.
    ///
    /// # Errors
    /// Which field is wrong and what is allowed.
    pub fn parse(kind: SourceKind, json: &RawValue) -> Result<Self, FieldError> {
        object("config", json.get())?;
        match kind {
            SourceKind::Monerod => {
                let config: MonerodConfig = parse("config", json.get())?;
                check_monerod(&config)?;
                Ok(Self::Monerod(config))
            }
            SourceKind::Stratum => {
                let config: StratumConfig = parse("config", json.get())?;
                check_stratum(&config)?;
                Ok(Self::Stratum(config))
            }
        }
    }

    /// Of which kind.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Monerod(_) => SourceKind::Monerod,
            Self::Stratum(_) => SourceKind::Stratum,
        }
    }

    /// As JSON without secrets, and the secrets as JSON.
    pub fn split(self) -> (String, SecretString) {
        match self {
            Self::Monerod(mut config) => {
                let secrets = vec![config.password.take()];
                (to_json(&config), to_json(&secrets).into())
            }
            Self::Stratum(mut config) => {
                let secrets: Vec<Option<String>> = config.pools.iter_mut().map(|pool| pool.password.take()).collect();
                (to_json(&config), to_json(&secrets).into())
            }
        }
    }

    /// The reverse of [`Config::split`].
    ///
    /// # Errors
    /// When what was kept is damaged.
    pub fn join(kind: SourceKind, shown: &str, secrets: &SecretString) -> Result<Self, FieldError> {
        let lost =
            |_| FieldError::new("secrets", "the key that sealed its passwords is gone: remove it and make it anew");
        let secrets: Vec<Option<String>> = serde_json::from_str(secrets.expose_secret()).map_err(lost)?;
        match kind {
            SourceKind::Monerod => {
                let config: MonerodConfig = parse("config", shown)?;
                Ok(Self::Monerod(MonerodConfig { password: secrets.into_iter().next().flatten(), ..config }))
            }
            SourceKind::Stratum => {
                let mut config: StratumConfig = parse("config", shown)?;
                config.pools.iter_mut().zip(secrets).for_each(|(pool, password)| pool.password = password);
                Ok(Self::Stratum(config))
            }
        }
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Checks a source's name.
///
/// # Errors
/// What is allowed.
pub fn check_id(id: &str) -> Result<(), FieldError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=ID_CHARS_MAX).contains(&id.len()) && id.chars().all(fits) {
        return Ok(());
    }
    Err(FieldError::new("id", format!("must be 1 to {ID_CHARS_MAX} lowercase letters, digits and '-'")))
}

fn check_monerod(config: &MonerodConfig) -> Result<(), FieldError> {
    check_url("config.url", &config.url)?;
    address::check(&config.wallet_address).map_err(|error| FieldError::new("config.wallet_address", error))?;
    check_text("config.user", config.user.as_deref())?;
    check_text("config.password", config.password.as_deref())?;
    if config.password.is_some() && config.user.is_none() {
        return Err(FieldError::new("config.user", "is needed with a password"));
    }
    Ok(())
}

fn check_stratum(config: &StratumConfig) -> Result<(), FieldError> {
    if !(1..=POOLS_MAX).contains(&config.pools.len()) {
        return Err(FieldError::new("config.pools", format!("must be 1 to {POOLS_MAX} pools")));
    }
    for (index, pool) in config.pools.iter().enumerate() {
        let path = |field: &str| format!("config.pools[{index}].{field}");
        let address = stratum::address(&pool.url).map_err(|error| FieldError::new(path("url"), error))?;
        check_text(&path("user"), Some(&pool.user))?;
        check_text(&path("password"), pool.password.as_deref())?;
        check_text(&path("rig_id"), pool.rig_id.as_deref())?;
        if let Some(fingerprint) = &pool.tls_fingerprint {
            let wrong = |error| FieldError::new(path("tls_fingerprint"), error);
            stratum::fingerprint_bytes(fingerprint).map_err(wrong)?;
            if !address.tls {
                return Err(wrong("is for stratum+ssl:// only".to_owned()));
            }
        }
    }
    Ok(())
}

fn check_url(path: &str, text: &str) -> Result<(), FieldError> {
    let allowed = "must be http://host:port or https://host:port of the node's RPC";
    let url = reqwest::Url::parse(text).map_err(|error| FieldError::new(path, format!("{allowed} ({error})")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FieldError::new(path, "must not hold user and password: they have fields of their own"));
    }
    let plain = matches!(url.scheme(), "http" | "https") && matches!(url.path(), "" | "/") && url.query().is_none();
    if plain && url.host_str().is_some() { Ok(()) } else { Err(FieldError::new(path, allowed)) }
}

fn check_text(path: &str, text: Option<&str>) -> Result<(), FieldError> {
    match text {
        Some(text) if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) => {
            Err(FieldError::new(path, format!("must be 1 to {TEXT_BYTES_MAX} bytes without control characters")))
        }
        _ => Ok(()),
    }
}
