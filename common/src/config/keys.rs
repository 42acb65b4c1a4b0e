//! Every setting there is: its name, what it is for, what is allowed. The one table that the file, the environment,
//! the flags, the help texts and the errors are made from.

/// Who reads a setting; `--help` shows each command its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody.
    All,
    /// The master.
    Master,
    /// The worker.
    Worker,
    /// Whoever talks to a running fleet.
    Client,
}

/// How a value looks in `flota.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// Values separated by commas; also an array in the file.
    List,
    /// `name=value` separated by commas; also a table in the file.
    Map,
    /// Never shown; has a `…_FILE` form.
    Secret,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in `flota.toml`: the variable without `FLOTA_`, in lowercase.
    pub name: &'static str,
    /// Who reads it.
    pub scope: Scope,
    /// How a value looks.
    pub shape: Shape,
    /// What applies without it, as text; empty: nothing.
    pub default: &'static str,
    /// What it is for, one line; of a secret what it is, in lowercase, to stand behind "file that holds the".
    pub help: &'static str,
    /// What is allowed, completing "must be …".
    pub allowed: &'static str,
}

const ADDRESS: &str = "an address with a port, such as 127.0.0.1:8888 (port 0 picks a free one)";
const HTTP_URL: &str = "an address that begins with http:// or https://, without user and password in it";

macro_rules! key {
    ($name:literal, $scope:ident, $shape:ident, $default:expr, $help:expr, $allowed:expr) => {
        Key {
            name: $name,
            scope: Scope::$scope,
            shape: Shape::$shape,
            default: $default,
            help: $help,
            allowed: $allowed,
        }
    };
}

/// All of them, in the order of the help.
pub const KEYS: &[Key] = &[
    key!("url", Client, One, "", "Where the fleet is, without it the web address on this machine", HTTP_URL),
    key!(
        "token",
        All,
        Secret,
        "",
        "token that REST, Socket.IO and metrics want",
        "1 to 512 printable ASCII characters without spaces"
    ),
    key!("web_listen", Master, One, "127.0.0.1:8888", "Address of the page, REST and Socket.IO", ADDRESS),
    key!("grpc_listen", Master, One, "127.0.0.1:50051", "Address that workers report to", ADDRESS),
    key!(
        "grpc_advertise",
        Master,
        One,
        "",
        "What workers are told to report to, where it differs from the address listened on",
        "a host with a port, such as master:50051"
    ),
    key!(
        "allowed_origins",
        Master,
        List,
        "",
        "Web pages of other origins that may use REST and Socket.IO",
        "origins such as https://fleet.example.org separated by commas, or *"
    ),
    key!(
        "store_url",
        Master,
        One,
        "sqlite:",
        "Where jobs are kept; sqlite: alone is flota.db in the data directory",
        "sqlite: or sqlite:PATH"
    ),
    key!(
        "retention_age",
        Master,
        One,
        "7d",
        "How long ended jobs are kept",
        "a number with ms, s, m, h, d or w, such as 7d, or off"
    ),
    key!(
        "retention_size",
        Master,
        One,
        "10GiB",
        "How large the store may grow before the oldest ended jobs go",
        "a number with B, KiB, MiB, GiB or TiB, such as 10GiB, or off"
    ),
    key!(
        "store_reserve",
        Master,
        One,
        "64MiB",
        "Free space on the store's disk that is kept for jobs accepted before: with less, new ones are refused",
        "a number with B, KiB, MiB, GiB or TiB, such as 64MiB, or off"
    ),
    key!(
        "jobs_max",
        Master,
        One,
        "5000000",
        "How many jobs may wait and run at once; more are refused with 429",
        "a whole number from 1 to 50000000"
    ),
    key!("owner_jobs_max", Master, One, "5000000", "The same for one owner", "a whole number from 1 to 50000000"),
    key!(
        "payload_max",
        Master,
        One,
        "32MiB",
        "The largest payload of a job",
        "a number with KiB or MiB, from 1KiB to 32MiB"
    ),
    key!(
        "result_max",
        Master,
        One,
        "64MiB",
        "The largest result of a job; one that is larger fails",
        "a number with KiB or MiB, from 1KiB to 512MiB"
    ),
    key!(
        "event_log_max",
        Master,
        One,
        "1MiB",
        "How much text and progress of a running job is kept for those who come to watch it later",
        "a number with KiB or MiB, from 1KiB to 64MiB"
    ),
    key!(
        "browsers_max",
        Master,
        One,
        "10000",
        "Browsers and other Socket.IO clients that are connected at once; more are refused with 503",
        "a whole number from 1 to 1000000"
    ),
    key!(
        "streams_max",
        Master,
        One,
        "10000",
        "Event streams and waiting calls that are open at once; more are refused with 503",
        "a whole number from 1 to 1000000"
    ),
    key!(
        "workers_max",
        Master,
        One,
        "20000",
        "Workers that are known, there or not; those that are gone longest are forgotten, and where there is none, others turned away",
        "a whole number from 1 to 1000000"
    ),
    key!(
        "simple_workers",
        Master,
        One,
        "keyless",
        "Workers that speak only the simple protocol; trusted sends them API keys over MQTT",
        "off, keyless or trusted"
    ),
    key!(
        "verify",
        Master,
        One,
        "samples",
        "How RandomX results are checked: samples computes all finds and some of the rest again, strict also wants a proof of each search",
        "off, samples or strict"
    ),
    key!(
        "mqtt_url",
        All,
        One,
        "",
        "The broker; without it `flota up` brings its own, the others look on this machine",
        "embedded, or mqtt://HOST[:PORT] or mqtts://HOST[:PORT] (user and password have settings of their own)"
    ),
    key!(
        "seal_key",
        Master,
        Secret,
        "",
        "key that seals users' API keys in the store, without it made once and kept in the data directory",
        "64 hex digits"
    ),
    key!(
        "conversation_tokens",
        Master,
        One,
        "8000",
        "How much of a conversation is sent with a question, in tokens as estimated; the oldest turns go first",
        "a whole number from 100 to 200000"
    ),
    key!(
        "conversation_age",
        Master,
        One,
        "90d",
        "How long a conversation is kept that nobody continues",
        "a number with ms, s, m, h, d or w, such as 90d, or off"
    ),
    key!(
        "ai_limits",
        Master,
        Map,
        "",
        "What may be asked a minute by owner, by model and by API key",
        "WHO_requests=NUMBER or WHO_tokens=NUMBER separated by commas; WHO is owner, model or key; numbers from 1"
    ),
    key!(
        "ai_budget",
        Master,
        Map,
        "",
        "What each owner may use a day, or one of them by its name; questions with an API key of their own don't count",
        "tokens=NUMBER, money=AMOUNT, OWNER:tokens=NUMBER or OWNER:money=AMOUNT separated by commas"
    ),
    key!(
        "ai_prices",
        Master,
        Map,
        "",
        "What a million tokens cost, of the question and of the answer; the name may end with *, the longest that fits counts",
        "MODEL=INPUT/OUTPUT separated by commas, such as gemini-3.5-pro=1.25/10"
    ),
    key!("ai_currency", Master, One, "USD", "What prices and budgets are counted in", "1 to 8 letters"),
    key!(
        "cache_size",
        Master,
        One,
        "64MiB",
        "How much memory results may take that are kept for jobs which ask the same",
        "a number with B, KiB, MiB, GiB or TiB, such as 64MiB, or off"
    ),
    key!(
        "cache_age",
        Master,
        One,
        "1h",
        "How long such results are kept",
        "a number with ms, s, m, h, d or w, such as 1h, or off"
    ),
    key!("mqtt_user", All, One, "", "Account at the broker", "1 to 512 characters"),
    key!("mqtt_password", All, Secret, "", "password at the broker", "1 to 512 characters on one line"),
    key!(
        "stratum_listen",
        Master,
        One,
        "",
        "Address where stock miners (XMRig) may join as guests; without it none may",
        ADDRESS
    ),
    key!("mqtt_listen", Master, One, "127.0.0.1:1883", "Address of the embedded broker", ADDRESS),
    key!(
        "topic_root",
        All,
        One,
        "flota",
        "What all MQTT topics begin with",
        "1 to 128 characters without +, # and spaces, with no / or $ in front and no / at the end"
    ),
    key!(
        "data_dir",
        All,
        One,
        "",
        "Where the store and the worker's id are kept, by default $XDG_DATA_HOME/flota or ~/.local/share/flota",
        "the path of a directory"
    ),
    key!(
        "worker_id",
        Worker,
        One,
        "",
        "The worker's name, without it made once and kept in the data directory",
        "1 to 128 printable ASCII characters without spaces, /, +, #, and no $ in front"
    ),
    key!(
        "worker_token",
        All,
        Secret,
        "",
        "token that workers show to the master",
        "1 to 512 printable ASCII characters without spaces"
    ),
    key!(
        "worker_slots",
        Worker,
        Map,
        "ai=64,echo=256,randomx=1",
        "How many units of a class run at once",
        "CLASS=NUMBER separated by commas; classes are randomx, ai, echo; numbers 0 to 100000"
    ),
    key!(
        "worker_prefetch",
        Worker,
        Map,
        "ai=0,echo=1024,randomx=1",
        "How many units of a class wait at the worker beyond its slots",
        "CLASS=NUMBER separated by commas; classes are randomx, ai, echo; numbers 0 to 100000"
    ),
    key!(
        "worker_labels",
        Worker,
        Map,
        "",
        "What jobs can require of a worker",
        "NAME=VALUE separated by commas, such as zone=a,disk=ssd; each up to 128 bytes"
    ),
    key!(
        "grpc_url",
        Worker,
        One,
        "",
        "The master's gRPC address, overriding what the worker is told",
        "a host with a port, such as master:50051 (there is no TLS on this link yet)"
    ),
    key!(
        "randomx_mode",
        Worker,
        One,
        "auto",
        "RandomX in 256 MiB (light) or 2336 MiB (fast); auto chooses by work and memory",
        "auto, light or fast"
    ),
    key!(
        "randomx_threads",
        Worker,
        One,
        "",
        "Threads that hash, without it as many as cores, their caches (2 MiB each) and memory are good for",
        "a whole number from 1 to 4096"
    ),
    key!(
        "randomx_shared_dir",
        Worker,
        One,
        "",
        "Directory on hugetlbfs or tmpfs where all workers of a host share one RandomX dataset",
        "the path of a directory of this user's"
    ),
    key!(
        "randomx_keep",
        Worker,
        One,
        "10m",
        "How long a RandomX dataset that nobody uses (or that a pause leaves unused) keeps its memory",
        "a number with s, m, h or d, such as 10m, or off to keep it"
    ),
    key!(
        "randomx_percent",
        Worker,
        One,
        "100",
        "Share of the time that each RandomX thread works, in percent",
        "a whole number from 1 to 100"
    ),
    key!(
        "randomx_nice",
        Worker,
        One,
        "0",
        "Priority of the RandomX threads: others with a lower number go first",
        "a whole number from 0 to 19"
    ),
    key!(
        "randomx_cpus",
        Worker,
        List,
        "",
        "Processors that the RandomX threads are bound to, in turn",
        "numbers and ranges separated by commas, such as 0,2-5"
    ),
    key!(
        "randomx_hours",
        Worker,
        One,
        "",
        "When RandomX may be computed, in local time",
        "two times of day, such as 22:00-06:00"
    ),
    key!(
        "randomx_load_max",
        Worker,
        One,
        "",
        "RandomX waits while other programs use more of all processors than this, in percent",
        "a whole number from 1 to 100"
    ),
    key!(
        "randomx_temperature_max",
        Worker,
        One,
        "",
        "RandomX waits while a sensor shows more degrees Celsius than this",
        "a whole number from 20 to 150"
    ),
    key!("randomx_battery", Worker, One, "run", "What RandomX does while the machine runs on battery", "run or pause"),
    key!(
        "randomx_user_idle",
        Worker,
        One,
        "",
        "RandomX waits until nobody has typed at a terminal of the machine for this long",
        "a number with s, m, h or d, such as 5m"
    ),
    key!(
        "peer_listen",
        Worker,
        One,
        "",
        "Address at which other workers may fetch RandomX datasets; they must show the worker token",
        "an address with a port, such as 0.0.0.0:50052 (port 0 picks a free one)"
    ),
    key!(
        "peers",
        Worker,
        List,
        "",
        "Workers to fetch RandomX datasets from where that is faster than computing them",
        "hosts with ports separated by commas, such as hash-1:50052"
    ),
    key!(
        "gemini_api_key",
        All,
        Secret,
        "",
        "key of the Gemini API",
        "1 to 512 printable ASCII characters without spaces"
    ),
    key!(
        "gemini_base_url",
        Worker,
        One,
        "https://generativelanguage.googleapis.com/v1beta",
        "Where the Gemini API is",
        HTTP_URL
    ),
    key!(
        "gemini_model",
        Worker,
        One,
        "gemini-3.5-flash-lite",
        "The model for questions that name none",
        "1 to 200 characters"
    ),
    key!("ai_local_url", Worker, One, "", "A local AI that speaks OpenAI's protocol", HTTP_URL),
    key!("ai_local_model", Worker, One, "", "The local AI's model", "1 to 200 characters"),
    key!(
        "ai_chain",
        Worker,
        List,
        "own,local,gemini",
        "Whom questions are put to, one after the other: own is Gemini with the question's own key, gemini with the worker's",
        "own, local, gemini, demo, each also with :MODEL, separated by commas"
    ),
    key!(
        "ai_classes",
        Worker,
        Map,
        "",
        "The models behind the classes that questions may name; without it the local AI's is small, Gemini's large",
        "small=MODEL,large=MODEL"
    ),
    key!(
        "log",
        All,
        One,
        "warn,flota=info",
        "What is logged",
        "off, error, warn, info, debug or trace, also by module: warn,flota=debug"
    ),
    key!("log_format", All, One, "text", "How the log is written", "text or json"),
];

impl Key {
    /// The key named `name` in `flota.toml`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        if self.name == "gemini_api_key" {
            "GEMINI_API_KEY".into()
        } else {
            format!("FLOTA_{}", self.name.to_uppercase())
        }
    }

    /// Its flag, without the dashes in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether it is never shown.
    #[must_use]
    pub fn secret(&self) -> bool {
        self.shape == Shape::Secret
    }
}

/// The known name that a mistyped one is nearest to, if one is near.
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = (typed.chars().count() / 3).clamp(1, 4);
    known.map(|name| (distance(typed, name), name)).filter(|(d, _)| *d <= bound).min_by_key(|(d, _)| *d).map(|(_, n)| n)
}

/// Levenshtein's: how many letters must be added, dropped or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_neighbour() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("web_listn", names()), Some("web_listen"));
        assert_eq!(nearest("weblisten", names()), Some("web_listen"));
        assert_eq!(nearest("gemini_key", names()), None);
        assert_eq!(nearest("colour", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn names_are_unique_and_follow_the_rule() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{} twice", key.name);
            assert!(key.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", key.name);
            assert!(!key.name.ends_with("_file"), "{} would look like a secret's file", key.name);
        }
    }
}
