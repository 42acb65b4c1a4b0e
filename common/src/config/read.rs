//! From merged layers to [`Settings`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;
use flota_proto::Class;
use flota_proto::topics::Topics;
use secrecy::SecretString;

use super::ai;
use super::error::{ConfigError, ConfigErrors};
use super::keys::Key;
use super::parse::{self, Parsed};
use super::sources::Sources;
use super::{Listen, Settings};

/// The largest file that is read as a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

pub fn settings(sources: &Sources) -> Result<Settings, ConfigErrors> {
    let mut reader = Reader { figment: sources.merged()?, errors: Vec::new() };
    let settings = fill(&mut reader, sources);
    match settings {
        Some(settings) if reader.errors.is_empty() => Ok(settings),
        _ => Err(ConfigErrors(reader.errors)),
    }
}

/// `None` only together with an error in the reader. What is required is read first and unwrapped last, so that one
/// error does not hide the next.
fn fill(r: &mut Reader, sources: &Sources) -> Option<Settings> {
    let web_listen = r.listen("web_listen");
    let grpc_listen = r.listen("grpc_listen");
    let mqtt_listen = r.listen("mqtt_listen");
    let topic_root = r.required("topic_root", |text| Topics::new(text).ok().map(|topics| topics.root().to_owned()));
    let store_url = r.required("store_url", parse::store);
    let retention_age = r.required("retention_age", parse::age);
    let retention_size = r.required("retention_size", parse::size);
    let store_reserve = r.required("store_reserve", parse::size);
    let ai_currency = r.required("ai_currency", parse::currency);
    let cache_size = r.required("cache_size", parse::size);
    let cache_age = r.required("cache_age", parse::age);
    let conversation_tokens = r.required("conversation_tokens", parse::whole(100..=200_000));
    let conversation_age = r.required("conversation_age", parse::age);
    let jobs_max = r.required("jobs_max", parse::number(1..=50_000_000));
    let owner_jobs_max = r.required("owner_jobs_max", parse::number(1..=50_000_000));
    let payload_max = r.required("payload_max", parse::bytes(1 << 10..=32 << 20));
    let result_max = r.required("result_max", parse::bytes(1 << 10..=512 << 20));
    let event_log_max = r.required("event_log_max", parse::bytes(1 << 10..=64 << 20));
    let browsers_max = r.required("browsers_max", parse::number(1..=1_000_000));
    let streams_max = r.required("streams_max", parse::number(1..=1_000_000));
    let workers_max = r.required("workers_max", parse::number(1..=1_000_000));
    let simple_workers = r.required("simple_workers", parse::simple_workers);
    let verify = r.required("verify", parse::verify);
    let worker_slots = r.classes("worker_slots");
    let worker_prefetch = r.classes("worker_prefetch");
    let randomx_mode = r.required("randomx_mode", parse::randomx_mode);
    let randomx_keep = r.required("randomx_keep", parse::age);
    let randomx_percent = r.required("randomx_percent", parse::number(1..=100));
    let randomx_nice = r.required("randomx_nice", parse::number(0..=19));
    let randomx_battery_pause = r.required("randomx_battery", parse::run_or_pause);
    let gemini_base_url = r.required("gemini_base_url", parse::http_url);
    let gemini_model = r.required("gemini_model", parse::text(200));
    let ai_chain = r.required("ai_chain", parse::chain);
    let log = r.required("log", parse::log_filter);
    let log_format = r.required("log_format", parse::log_format);
    let data_dir = r.data_dir(sources);
    Some(Settings {
        url: r.optional("url", parse::http_url),
        token: r.secret("token", parse::token),
        grpc_advertise: r.optional("grpc_advertise", parse::host_port),
        stratum_listen: r.optional("stratum_listen", parse::address).map(|address| Listen { address, set: true }),
        allowed_origins: r.optional("allowed_origins", parse::origins).unwrap_or_default(),
        mqtt_url: r.optional("mqtt_url", parse::broker),
        mqtt_user: r.optional("mqtt_user", parse::text(512)),
        mqtt_password: r.secret("mqtt_password", parse::password),
        worker_id: r.optional("worker_id", |text| text.parse().ok()),
        worker_token: r.secret("worker_token", parse::token),
        worker_labels: r.optional("worker_labels", parse::labels).unwrap_or_default(),
        grpc_url: r.optional("grpc_url", parse::grpc_url),
        randomx_threads: r.optional("randomx_threads", parse::threads),
        randomx_shared_dir: r.optional("randomx_shared_dir", |text| Some(PathBuf::from(text))),
        randomx_keep: randomx_keep?,
        randomx_percent: randomx_percent?,
        randomx_nice: randomx_nice?,
        randomx_cpus: r.optional("randomx_cpus", parse::cpus).unwrap_or_default(),
        randomx_hours: r.optional("randomx_hours", parse::hours),
        randomx_load_max: r.optional("randomx_load_max", parse::number(1..=100)),
        randomx_temperature_max: r.optional("randomx_temperature_max", parse::number(20..=150)),
        randomx_battery_pause: randomx_battery_pause?,
        randomx_user_idle: r.optional("randomx_user_idle", |text| parse::age(text).flatten()),
        peer_listen: r.optional("peer_listen", |text| text.parse().ok()),
        peers: r.optional("peers", parse::peers).unwrap_or_default(),
        gemini_api_key: r.secret("gemini_api_key", parse::token),
        ai_local_url: r.optional("ai_local_url", parse::http_url),
        ai_local_model: r.optional("ai_local_model", parse::text(200)),
        ai_chain: ai_chain?,
        ai_classes: r.optional("ai_classes", parse::model_classes).unwrap_or_default(),
        web_listen: web_listen?,
        grpc_listen: grpc_listen?,
        store_url: store_url?,
        retention_age: retention_age?,
        retention_size: retention_size?,
        store_reserve: store_reserve?,
        jobs_max: jobs_max?,
        owner_jobs_max: owner_jobs_max?,
        payload_max: payload_max?,
        result_max: result_max?,
        event_log_max: event_log_max?,
        browsers_max: browsers_max?,
        streams_max: streams_max?,
        workers_max: workers_max?,
        simple_workers: simple_workers?,
        ai_limits: r.optional("ai_limits", ai::limits).unwrap_or_default(),
        ai_budget: r.optional("ai_budget", ai::budget).unwrap_or_default(),
        ai_prices: r.optional("ai_prices", ai::prices).unwrap_or_default(),
        ai_currency: ai_currency?,
        cache_size: cache_size?,
        cache_age: cache_age?,
        verify: verify?,
        seal_key: r.secret("seal_key", parse::seal_key),
        conversation_tokens: conversation_tokens?,
        conversation_age: conversation_age?,
        mqtt_listen: mqtt_listen?,
        topic_root: topic_root?,
        data_dir: data_dir?,
        worker_slots: worker_slots?,
        worker_prefetch: worker_prefetch?,
        randomx_mode: randomx_mode?,
        gemini_base_url: gemini_base_url?,
        gemini_model: gemini_model?,
        log: log?,
        log_format: log_format?,
    })
}

struct Reader {
    figment: Figment,
    errors: Vec<ConfigError>,
}

impl Reader {
    fn value(&self, name: &str) -> Option<Value> {
        self.figment.find_value(name).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.into_string()
    }

    /// An error at the value that is set for `name`, spelt as where it came from.
    fn error(&mut self, name: &str, file: bool, value: Option<String>, message: String) {
        let metadata = self.value(name).and_then(|value| self.figment.get_metadata(innermost(&value).tag()).cloned());
        let keys: &[&str] = if file { &[name, "file"] } else { &[name] };
        let (name, source) = match metadata {
            Some(metadata) => (metadata.interpolate(&figment::Profile::Default, keys), metadata.name.into_owned()),
            None => (Key::find(name).map_or_else(|| name.to_owned(), Key::variable), String::new()),
        };
        self.errors.push(ConfigError { name, value, source, message });
    }

    fn not_allowed(&mut self, name: &str, value: Option<String>) {
        let allowed = Key::find(name).map_or("something else", |key| key.allowed);
        self.error(name, false, value, format!("must be {allowed}"));
    }

    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        let text = self.text(name)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.not_allowed(name, Some(text));
        }
        parsed
    }

    fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        match self.text(name) {
            Some(_) => self.optional(name, parse),
            None => parse(Key::find(name)?.default),
        }
    }

    fn listen(&mut self, name: &str) -> Option<Listen> {
        let set = self.text(name).is_some();
        self.required(name, parse::address).map(|address| Listen { address, set })
    }

    fn classes(&mut self, name: &str) -> Option<BTreeMap<Class, u32>> {
        let defaults = parse::classes(Key::find(name)?.default, &BTreeMap::new())?;
        self.required(name, |text| parse::classes(text, &defaults))
    }

    fn secret(&mut self, name: &str, fits: impl FnOnce(&str) -> Parsed<()>) -> Option<SecretString> {
        let (text, from_file) = match self.value(name)? {
            Value::Dict(_, entries) => {
                let path = entries.get("file").cloned().and_then(Value::into_string)?;
                match read_secret(Path::new(&path)) {
                    Ok(text) => (text, Some(path)),
                    Err(message) => {
                        self.error(name, true, Some(path), message);
                        return None;
                    }
                }
            }
            value => (value.into_string()?, None),
        };
        if fits(&text).is_none() {
            let allowed = Key::find(name).map_or("something else", |key| key.allowed);
            match from_file {
                Some(path) => self.error(name, true, Some(path), format!("what the file holds must be {allowed}")),
                None => self.not_allowed(name, None),
            }
            return None;
        }
        Some(SecretString::from(text))
    }

    fn data_dir(&mut self, sources: &Sources) -> Option<PathBuf> {
        let home = sources.variable("HOME").map(PathBuf::from);
        if self.text("data_dir").is_some() {
            let path = self.optional("data_dir", parse::path)?;
            let path = match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            };
            return std::path::absolute(&path).ok().or_else(|| {
                self.not_allowed("data_dir", Some(path.display().to_string()));
                None
            });
        }
        let xdg = sources.variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = xdg.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/share")));
        if base.is_none() {
            let message = "there is no HOME to keep data under: set FLOTA_DATA_DIR".to_owned();
            self.error("data_dir", false, None, message);
        }
        base.map(|base| base.join("flota"))
    }
}

/// A secret's file lies one level down; its tag is that of the layer.
fn innermost(value: &Value) -> &Value {
    match value {
        Value::Dict(_, entries) => entries.get("file").unwrap_or(value),
        value => value,
    }
}

/// The text of a secret's file without the line end that editors leave.
fn read_secret(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("can't be read: {error}"))?;
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| format!("can't be read: {error}"))?;
    let trimmed = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if trimmed.is_empty() { Err("is empty".into()) } else { Ok(trimmed.to_owned()) }
}
