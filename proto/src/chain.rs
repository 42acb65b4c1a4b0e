//! Whom a question is put to, one after the other, as settings and requests spell it: `own`, `local`, `gemini`, `demo`, each also
//! with a model behind a colon.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Gemini with the question's own key.
    Own,
    /// The local AI.
    Local,
    /// Gemini with the worker's key.
    Gemini,
    /// The demo.
    Demo,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Own, Self::Local, Self::Gemini, Self::Demo];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Local => "local",
            Self::Gemini => "gemini",
            Self::Demo => "demo",
        }
    }
}

/// One link of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Who is asked.
    pub source: Source,
    /// For which model; without it the question's, else the default.
    pub model: Option<String>,
}

/// The most links of a chain.
pub const LINKS_MAX: usize = 16;

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source.as_str())?;
        self.model.as_ref().map_or(Ok(()), |model| write!(f, ":{model}"))
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, model) = text.split_once(':').map_or((text, None), |(name, model)| (name, Some(model)));
        let source = Source::ALL.into_iter().find(|source| source.as_str() == name);
        let fits = model.is_none_or(|model| !model.is_empty() && model.len() <= 200);
        source.filter(|_| fits).map(|source| Self { source, model: model.map(str::to_owned) }).ok_or_else(|| {
            let known = Source::ALL.map(Source::as_str).join(", ");
            format!("must be one of {known}, with a model behind a colon where another than the default is meant")
        })
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_source_and_perhaps_a_model() {
        for text in ["own", "local", "gemini:gemini-3.5-pro", "local:qwen3:4b", "demo"] {
            assert_eq!(text.parse::<Link>().unwrap().to_string(), text);
        }
        for text in ["", "Gemini", "gemini:", "openai", ":x"] {
            assert!(text.parse::<Link>().unwrap_err().contains("own, local, gemini, demo"), "{text}");
        }
    }
}
