//! The log: for people on stderr, or JSON; with one more layer where a part wants the lines for itself.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::{LogFormat, Settings};

/// Why the log can't be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter can't be parsed.
    #[error("FLOTA_LOG is no filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the log of this process. `extra` gets what passes the filter (`FLOTA_LOG`) too.
///
/// # Errors
/// When the filter is none or the log is set up already.
pub fn init<L>(settings: &Settings, extra: Option<L>) -> Result<(), LoggingError>
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    let mut filter = EnvFilter::builder().parse(&settings.log)?;
    // The embedded broker's router opens a span of level error for every packet and calls ordinary ends errors.
    if !settings.log.contains("rumqttd") {
        filter = filter.add_directive("rumqttd=off".parse()?);
    }
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.compact().with_target(false).with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(extra.map(Layer::boxed)).with(lines).with(filter).try_init()?;
    Ok(())
}
