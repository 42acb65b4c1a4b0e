//! Where values come from: the file, the environment and the flags, each as one layer over the one before.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, ConfigErrors};
use super::keys::{KEYS, Key, Shape, nearest};

/// The file that is read where nobody names one.
pub const FILE: &str = "flota.toml";

/// What the configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`: must be there; without it `FLOTA_CONFIG`, then `flota.toml` in `directory` if there is one.
    pub file: Option<PathBuf>,
    /// What the file holds, where it is not to be read.
    pub document: Option<String>,
    /// Where `flota.toml` is looked for.
    pub directory: PathBuf,
    /// Variables; others than `FLOTA_*` and the few that are known are ignored. An empty one counts as not set,
    /// because compose files pass on what nobody set as empty.
    pub environment: Vec<(OsString, OsString)>,
    /// `(key, value)`; a secret's file comes as `KEY_file`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// This process's environment and working directory, with the flags given.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        Self { file, document: None, directory: PathBuf::from("."), environment: std::env::vars_os().collect(), flags }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.iter().rev().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// All layers merged. A secret's file is the value `{file: path}`, so that either form replaces the other of a
    /// lower layer.
    pub fn merged(&self) -> Result<Figment, ConfigErrors> {
        let mut errors = Vec::new();
        let mut figment = Figment::new();
        if let Some(layer) = self.file_layer(&mut errors)? {
            figment = figment.merge(layer);
        }
        figment = figment.merge(self.environment_layer(&mut errors)).merge(self.flags_layer(&mut errors));
        if errors.is_empty() { Ok(figment) } else { Err(ConfigErrors(errors)) }
    }

    fn file_layer(&self, errors: &mut Vec<ConfigError>) -> Result<Option<Layer>, ConfigErrors> {
        let named = self.file.clone().or_else(|| self.variable("FLOTA_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| self.directory.join(FILE));
        let read = || self.document.clone().map_or_else(|| std::fs::read_to_string(&path), Ok);
        let text = match read() {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(&path, format!("can't be read: {error}")).into()),
        };
        // The library's own text quotes the line, which may hold a secret.
        let document: Dict = Toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            file_error(&path, format!("is no valid TOML at line {line}: {}", error.message()))
        })?;
        let text = |name: &str, value| match Key::find(name) {
            Some(key) if !shape_fits(key, value) => Err("takes one value, not an array or a table".to_owned()),
            _ => text_of(value),
        };
        let entries = document.iter().map(|(name, value)| (name.clone(), text(name, value))).collect();
        Ok(Some(Layer::new(Spelling::File(path), entries, errors)))
    }

    fn environment_layer(&self, errors: &mut Vec<ConfigError>) -> Layer {
        let mut entries = Vec::new();
        for (variable, value) in &self.environment {
            let Some(variable) = variable.to_str() else { continue };
            let name = match variable.strip_prefix("FLOTA_") {
                Some("CONFIG") => continue,
                // One spelling each: FLOTA_web_listen and FLOTA_GEMINI_API_KEY are unknown, not second names.
                Some(name) if name.starts_with("GEMINI_API_KEY") || name.contains(|c: char| c.is_ascii_lowercase()) => {
                    variable.to_lowercase()
                }
                Some(name) => name.to_lowercase(),
                None if variable == "GEMINI_API_KEY" || variable == "GEMINI_API_KEY_FILE" => variable.to_lowercase(),
                None => continue,
            };
            if !value.is_empty() {
                let text = value.to_str().map(str::to_owned).ok_or_else(|| "is not valid UTF-8".to_owned());
                entries.push((name, text));
            }
        }
        Layer::new(Spelling::Environment, entries, errors)
    }

    fn flags_layer(&self, errors: &mut Vec<ConfigError>) -> Layer {
        let entries = self.flags.iter().map(|(name, value)| (name.clone(), Ok(value.clone()))).collect();
        Layer::new(Spelling::Flags, entries, errors)
    }
}

fn file_error(path: &Path, message: impl Into<String>) -> ConfigError {
    let mut path = path.display().to_string();
    if let Some(short) = path.strip_prefix("./") {
        path = short.to_owned();
    }
    ConfigError { name: String::new(), value: None, source: path, message: message.into() }
}

/// Where a layer's names come from, and so how they are spelt.
#[derive(Clone, Debug)]
enum Spelling {
    File(PathBuf),
    Environment,
    Flags,
}

impl Spelling {
    fn source(&self) -> String {
        match self {
            Self::File(path) => file_error(path, "").source,
            Self::Environment => "environment".into(),
            Self::Flags => "flags".into(),
        }
    }

    /// `name` is a key, or a key followed by `_file`.
    fn spell(&self, name: &str) -> String {
        match self {
            Self::File(_) => name.to_owned(),
            Self::Environment if name.starts_with("gemini_api_key") || name.starts_with("flota_") => {
                name.to_uppercase()
            }
            Self::Environment => format!("FLOTA_{}", name.to_uppercase()),
            Self::Flags => format!("--{}", name.replace('_', "-")),
        }
    }

    fn error(&self, name: &str, value: Option<String>, message: impl Into<String>) -> ConfigError {
        ConfigError { name: self.spell(name), value, source: self.source(), message: message.into() }
    }

    fn unknown(&self, name: &str) -> ConfigError {
        let secrets = KEYS.iter().filter(|key| key.secret()).map(|key| format!("{}_file", key.name));
        let known: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).chain(secrets).collect();
        let typed = name.strip_prefix("flota_").unwrap_or(name);
        let message = match nearest(typed, known.iter().map(String::as_str)) {
            Some(near) => format!("there is no such setting; did you mean {}?", self.spell(near)),
            None => {
                let all: Vec<String> = KEYS.iter().map(|key| self.spell(key.name)).collect();
                format!("there is no such setting; there are {}", all.join(", "))
            }
        };
        self.error(name, None, message)
    }
}

/// One source's values, checked for names and ready to be merged.
struct Layer {
    spelling: Spelling,
    values: Dict,
}

impl Layer {
    fn new(spelling: Spelling, entries: Vec<(String, Result<String, String>)>, errors: &mut Vec<ConfigError>) -> Self {
        let mut values = Dict::new();
        for (name, text) in entries {
            let (key, from_file) = match (Key::find(&name), name.strip_suffix("_file").and_then(Key::find)) {
                (Some(key), _) => (key, false),
                (None, Some(key)) if key.secret() => (key, true),
                (None, _) => {
                    errors.push(spelling.unknown(&name));
                    continue;
                }
            };
            let text = match text {
                Ok(text) => text,
                Err(message) => {
                    errors.push(spelling.error(&name, None, message));
                    continue;
                }
            };
            let value =
                if from_file { Dict::from([("file".to_owned(), Value::from(text))]).into() } else { text.into() };
            if values.insert(key.name.to_owned(), value).is_some() {
                let other = format!("{}_file", key.name);
                let message = format!("{} is given too: give one of them", spelling.spell(&other));
                errors.push(spelling.error(key.name, None, message));
            }
        }
        Self { spelling, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let spelling = self.spelling.clone();
        Metadata::named(self.spelling.source()).interpolater(move |_, keys| spelling.spell(&keys.join("_")))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// A value of the file as the text that the environment would hold.
fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Bool(_, flag) => Ok(flag.to_string()),
        Value::Num(_, number) => number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .ok_or_else(|| "is no usable number".to_owned()),
        Value::Array(_, items) => items.iter().map(part).collect::<Result<Vec<_>, _>>().map(|parts| parts.join(",")),
        Value::Dict(_, entries) => {
            let pair = |(name, value): (&String, &Value)| Ok::<_, String>(format!("{name}={}", part(value)?));
            entries.iter().map(pair).collect::<Result<Vec<_>, _>>().map(|parts| parts.join(","))
        }
        Value::Char(_, c) => Ok(c.to_string()),
        Value::Empty(..) => Err("has no value".into()),
    }
}

fn part(value: &Value) -> Result<String, String> {
    if matches!(value, Value::Array(..) | Value::Dict(..)) {
        return Err("is nested too deep: settings stand at the top level".into());
    }
    let text = text_of(value)?;
    if text.contains(',') { Err(format!("'{text}' may not hold a comma")) } else { Ok(text) }
}

/// Whether the key takes what stands in the file as an array or table.
fn shape_fits(key: &Key, value: &Value) -> bool {
    match value {
        Value::Array(..) => key.shape == Shape::List,
        Value::Dict(..) => key.shape == Shape::Map,
        _ => true,
    }
}
