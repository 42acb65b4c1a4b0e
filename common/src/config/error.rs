//! What is wrong with the configuration: every error names the setting, where it came from and what is allowed.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// As it is spelt where it came from: `FLOTA_LOG`, `log`, `--log`; empty where it concerns no single setting.
    pub name: String,
    /// The value, unless it is a secret or there is none.
    pub value: Option<String>,
    /// Where it came from: `environment`, `flags`, the path of the file.
    pub source: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(value) = &self.value {
            write!(f, " = {}", quoted(value))?;
        }
        match (self.name.is_empty(), self.source.is_empty()) {
            (_, true) => {}
            (true, false) => f.write_str(&self.source)?,
            (false, false) => write!(f, " ({})", self.source)?,
        }
        if !(self.name.is_empty() && self.source.is_empty()) {
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong: nobody should have to start again and again to find the next error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// A value as it may be shown: short, printable, and without the password that someone put into an address.
fn quoted(value: &str) -> String {
    let mut shown = value.to_owned();
    if let (Some(scheme), Some(at)) = (value.find("://"), value.rfind('@'))
        && scheme + 3 < at
    {
        shown.replace_range(scheme + 3..at, "***");
    }
    if shown.chars().count() > 120 {
        shown = shown.chars().take(117).chain("...".chars()).collect();
    }
    format!("'{}'", shown.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        assert_eq!(quoted("mqtt://ana:s3cret@broker"), "'mqtt://***@broker'");
        assert_eq!(quoted("a@b"), "'a@b'");
        assert_eq!(quoted("two\nlines"), "'two\\nlines'");
        assert!(quoted(&"x".repeat(500)).len() < 130);
    }
}
