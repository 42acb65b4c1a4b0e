//! What a user of the configuration sees: precedence, errors, secrets.

use std::fs;

use secrecy::ExposeSecret;

use super::*;

fn sources(environment: &[(&str, &str)]) -> Sources {
    let mut all = vec![("HOME".into(), "/home/ana".into())];
    all.extend(environment.iter().map(|(name, value)| (name.into(), value.into())));
    Sources { directory: "/nonexistent".into(), environment: all, ..Sources::default() }
}

pub fn load(environment: &[(&str, &str)]) -> Result<Settings, ConfigErrors> {
    Settings::load(&sources(environment))
}

fn refused(environment: &[(&str, &str)]) -> String {
    load(environment).unwrap_err().to_string()
}

struct WithFile {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn with_file(text: &str) -> WithFile {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), text).unwrap();
    let sources = Sources { directory: dir.path().to_owned(), ..sources(&[]) };
    WithFile { dir, sources }
}

fn file_refused(text: &str) -> String {
    Settings::load(&with_file(text).sources).unwrap_err().to_string()
}

#[test]
fn every_default_is_allowed() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.web_listen.address.to_string(), "127.0.0.1:8888");
    assert!(!settings.web_listen.set);
    assert_eq!(settings.base_url(), "http://127.0.0.1:8888");
    assert_eq!(settings.topic_root, "flota");
    assert_eq!(settings.data_dir, PathBuf::from("/home/ana/.local/share/flota"));
    assert_eq!(settings.sqlite_path(), PathBuf::from("/home/ana/.local/share/flota/flota.db"));
    assert_eq!(settings.worker_slots[&Class::Ai], 64);
    assert_eq!(settings.broker().host_port(), Some(("127.0.0.1".into(), 1883)));
    assert!(settings.token.is_none() && settings.mqtt_url.is_none());
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_defaults() {
    let mut with = with_file("topic_root = 'file'\nlog = 'debug'\nweb_listen = '127.0.0.1:1'\n");
    let get = |sources: &Sources| {
        let settings = Settings::load(sources).unwrap();
        (settings.topic_root, settings.log, settings.web_listen.address.port(), settings.gemini_model)
    };
    let gemini = "gemini-3.5-flash-lite".to_owned();
    assert_eq!(get(&with.sources), ("file".into(), "debug".into(), 1, gemini.clone()));
    with.sources.environment.push(("FLOTA_TOPIC_ROOT".into(), "env".into()));
    with.sources.environment.push(("FLOTA_LOG".into(), "error".into()));
    assert_eq!(get(&with.sources), ("env".into(), "error".into(), 1, gemini.clone()));
    with.sources.flags.push(("topic_root".into(), "flag".into()));
    assert_eq!(get(&with.sources), ("flag".into(), "error".into(), 1, gemini));
}

#[test]
fn an_unknown_variable_is_named_with_its_neighbour() {
    let text = refused(&[("FLOTA_WEB_LISTN", "127.0.0.1:1")]);
    assert_eq!(text, "FLOTA_WEB_LISTN (environment): there is no such setting; did you mean FLOTA_WEB_LISTEN?");
    assert!(refused(&[("FLOTA_COLOUR", "red")]).contains("there are FLOTA_URL, FLOTA_TOKEN, "));
    assert!(refused(&[("FLOTA_GEMINI_API_KEY", "x")]).contains("did you mean GEMINI_API_KEY?"));
    assert!(refused(&[("FLOTA_log", "info")]).contains("did you mean FLOTA_LOG?"));
    assert!(load(&[("OTHER_FLOTA", "x"), ("GEMINI_MODEL", "x")]).is_ok());
}

#[test]
fn an_unknown_name_in_the_file_is_named_with_its_neighbour() {
    let with = with_file("web_lisen = '127.0.0.1:1'");
    let text = Settings::load(&with.sources).unwrap_err().to_string();
    let path = with.dir.path().join(FILE).display().to_string();
    assert_eq!(text, format!("web_lisen ({path}): there is no such setting; did you mean web_listen?"));
    assert!(file_refused("[worker]\nid = 'w'").contains("worker ("));
}

#[test]
fn a_bad_value_says_where_it_came_from_and_what_is_allowed() {
    assert_eq!(
        refused(&[("FLOTA_RANDOMX_MODE", "slow")]),
        "FLOTA_RANDOMX_MODE = 'slow' (environment): must be auto, light or fast"
    );
    let mut with = sources(&[]);
    with.flags.push(("retention_age".into(), "7 days".into()));
    let text = Settings::load(&with).unwrap_err().to_string();
    assert!(text.starts_with("--retention-age = '7 days' (flags): must be a number with ms"), "{text}");
    assert!(file_refused("randomx_threads = 0").contains("randomx_threads = '0'"));
}

#[test]
fn every_bad_value_is_refused() {
    for (name, value) in [
        ("FLOTA_URL", "fleet"),
        ("FLOTA_TOKEN", "two words"),
        ("FLOTA_WEB_LISTEN", "8888"),
        ("FLOTA_GRPC_LISTEN", "127.0.0.1:99999"),
        ("FLOTA_GRPC_ADVERTISE", "master"),
        ("FLOTA_ALLOWED_ORIGINS", "example.org"),
        ("FLOTA_STORE_URL", "mysql://x"),
        ("FLOTA_RETENTION_AGE", "seven"),
        ("FLOTA_RETENTION_SIZE", "10GB"),
        ("FLOTA_SIMPLE_WORKERS", "yes"),
        ("FLOTA_MQTT_URL", "localhost:1883"),
        ("FLOTA_MQTT_USER", "a\nb"),
        ("FLOTA_MQTT_PASSWORD", "a\nb"),
        ("FLOTA_MQTT_LISTEN", ":1883"),
        ("FLOTA_TOPIC_ROOT", "a/#"),
        ("FLOTA_WORKER_ID", "a/b"),
        ("FLOTA_WORKER_TOKEN", "\u{e9}"),
        ("FLOTA_WORKER_SLOTS", "gpu=1"),
        ("FLOTA_WORKER_PREFETCH", "echo=many"),
        ("FLOTA_WORKER_LABELS", "zone"),
        ("FLOTA_GRPC_URL", "ftp://x:1"),
        ("FLOTA_RANDOMX_MODE", "FAST"),
        ("FLOTA_RANDOMX_THREADS", "-1"),
        ("GEMINI_API_KEY", "a b"),
        ("FLOTA_GEMINI_BASE_URL", "gemini"),
        ("FLOTA_AI_LOCAL_URL", "unix:/x"),
        ("FLOTA_LOG", "loud"),
        ("FLOTA_LOG_FORMAT", "xml"),
    ] {
        let text = refused(&[(name, value)]);
        assert!(text.starts_with(name) && text.contains("must be "), "{name}: {text}");
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let text = refused(&[("FLOTA_RANDOMX_MODE", "slow"), ("FLOTA_LOG", "loud"), ("FLOTA_URL", "x")]);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let settings = load(&[("GEMINI_API_KEY", ""), ("FLOTA_TOKEN_FILE", ""), ("FLOTA_LOG", "")]).unwrap();
    assert!(settings.gemini_api_key.is_none() && settings.token.is_none());
    assert_eq!(settings.log, "warn,flota=info");
}

#[test]
fn the_file_takes_numbers_arrays_and_tables() {
    let with = with_file(
        "randomx_threads = 3\nallowed_origins = ['https://a.org', 'https://b.org']\n\
         worker_slots = { ai = 2 }\n[worker_labels]\nzone = 'a'\ndisk = 'ssd'\n",
    );
    let settings = Settings::load(&with.sources).unwrap();
    assert_eq!(settings.randomx_threads, Some(3));
    assert_eq!(settings.allowed_origins.len(), 2);
    assert_eq!(settings.worker_slots[&Class::Ai], 2);
    assert_eq!(settings.worker_slots[&Class::Echo], 256);
    assert_eq!(settings.worker_labels["disk"], "ssd");
    for bad in ["log = ['a']", "log = {a = 1}", "worker_labels = {a = 'x,y'}", "worker_labels = {a = {b = 1}}"] {
        assert!(Settings::load(&with_file(bad).sources).is_err(), "{bad}");
    }
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let text = file_refused("log = 'info'\ntoken = geheim\n");
    assert!(text.contains("flota.toml: is no valid TOML at line 2: ") && !text.contains("geheim"), "{text}");
    let mut with = sources(&[]);
    with.file = Some("/nonexistent/f.toml".into());
    let text = Settings::load(&with).unwrap_err().to_string();
    assert!(text.starts_with("/nonexistent/f.toml: can't be read: "), "{text}");
    let text = refused(&[("FLOTA_CONFIG", "/nonexistent/g.toml")]);
    assert!(text.starts_with("/nonexistent/g.toml: can't be read: "), "{text}");
}

#[test]
fn a_secret_comes_from_its_file_without_the_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "s3cret\n").unwrap();
    let path = path.to_str().unwrap();
    let settings = load(&[("FLOTA_TOKEN_FILE", path), ("GEMINI_API_KEY_FILE", path)]).unwrap();
    assert_eq!(settings.token.unwrap().expose_secret(), "s3cret");
    assert_eq!(settings.gemini_api_key.unwrap().expose_secret(), "s3cret");
}

#[test]
fn a_secret_given_twice_is_an_error_and_a_higher_layer_replaces_either_form() {
    let text = refused(&[("FLOTA_TOKEN", "abc"), ("FLOTA_TOKEN_FILE", "/x")]);
    assert_eq!(text, "FLOTA_TOKEN (environment): FLOTA_TOKEN_FILE is given too: give one of them");
    let mut with = with_file("token_file = '/nonexistent'");
    with.sources.environment.push(("FLOTA_TOKEN".into(), "env".into()));
    assert_eq!(Settings::load(&with.sources).unwrap().token.unwrap().expose_secret(), "env");
    let path = with.dir.path().join("t");
    fs::write(&path, "flag").unwrap();
    with.sources.flags.push(("token_file".into(), path.display().to_string()));
    assert_eq!(Settings::load(&with.sources).unwrap().token.unwrap().expose_secret(), "flag");
}

#[test]
fn a_secrets_file_that_cannot_be_read_is_named_with_its_path() {
    let text = refused(&[("FLOTA_WORKER_TOKEN_FILE", "/nonexistent/token")]);
    assert!(
        text.starts_with("FLOTA_WORKER_TOKEN_FILE = '/nonexistent/token' (environment): can't be read: "),
        "{text}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    fs::write(&path, "\n").unwrap();
    assert!(refused(&[("GEMINI_API_KEY_FILE", path.to_str().unwrap())]).ends_with("(environment): is empty"));
    assert!(refused(&[("FLOTA_LOG_FILE", "/x")]).contains("there is no such setting"));
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = [
        ("FLOTA_TOKEN", "geheim-1"),
        ("FLOTA_WORKER_TOKEN", "geheim-2"),
        ("FLOTA_MQTT_PASSWORD", "geheim-3"),
        ("GEMINI_API_KEY", "geheim-4"),
    ];
    let shown = format!("{0:?} {0:#?}", load(&secrets).unwrap());
    assert!(!shown.contains("geheim"), "{shown}");
    for (name, _) in secrets {
        let text = refused(&[(name, "geheim geheim\n")]);
        assert!(text.starts_with(name) && !text.contains("geheim"), "{text}");
    }
    let text = refused(&[("FLOTA_MQTT_URL", "mqtt://ana:geheim@broker")]);
    assert!(!text.contains("geheim") && text.contains("settings of their own"), "{text}");
    assert!(!file_refused("token = ['geheim']").contains("geheim"));
}

#[test]
fn the_data_directory_follows_xdg() {
    assert_eq!(load(&[("XDG_DATA_HOME", "/data")]).unwrap().data_dir, PathBuf::from("/data/flota"));
    assert_eq!(load(&[("FLOTA_DATA_DIR", "~/f")]).unwrap().data_dir, PathBuf::from("/home/ana/f"));
    let homeless = Sources { directory: "/nonexistent".into(), ..Sources::default() };
    let text = Settings::load(&homeless).unwrap_err().to_string();
    assert!(text.contains("set FLOTA_DATA_DIR"), "{text}");
}

#[test]
fn what_other_machines_can_reach_demands_a_secret() {
    let open = [
        ("FLOTA_WEB_LISTEN", "0.0.0.0:8888"),
        ("FLOTA_GRPC_LISTEN", "0.0.0.0:50051"),
        ("FLOTA_MQTT_LISTEN", "0.0.0.0:1883"),
    ];
    let settings = load(&open).unwrap();
    let text = settings.check_exposure(&Broker::Embedded).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("FLOTA_WEB_LISTEN = '0.0.0.0:8888': can be reached from other machines: set FLOTA_TOKEN"));
    assert_eq!(settings.check_exposure(&settings.broker()).unwrap_err().0.len(), 2, "no embedded broker, no listener");
    let closed =
        [("FLOTA_TOKEN", "a"), ("FLOTA_WORKER_TOKEN", "b"), ("FLOTA_MQTT_USER", "c"), ("FLOTA_MQTT_PASSWORD", "d")];
    let settings = load(&[open.as_slice(), &closed].concat()).unwrap();
    assert!(settings.check_exposure(&Broker::Embedded).is_ok());
}

#[test]
fn trusted_simple_workers_demand_a_broker_that_not_everybody_reads() {
    let trusted = ("FLOTA_SIMPLE_WORKERS", "trusted");
    let far = ("FLOTA_MQTT_URL", "mqtt://broker.example.org");
    let check = |env: &[(&str, &str)]| {
        let settings = load(env).unwrap();
        settings.check_exposure(&settings.broker())
    };
    assert!(check(&[trusted]).is_ok());
    assert!(check(&[trusted, far]).unwrap_err().to_string().contains("FLOTA_MQTT_USER"));
    assert!(check(&[trusted, far, ("FLOTA_MQTT_USER", "a"), ("FLOTA_MQTT_PASSWORD", "b")]).is_ok());
    assert!(check(&[far]).is_ok());
}
