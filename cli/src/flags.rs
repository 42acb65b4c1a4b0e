//! A flag for every setting, made from the table of settings, so that no two of them can disagree.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Command};
use flota_common::config::{KEYS, Key, Scope, Shape};

/// Which settings a command takes as flags.
pub trait Picks: Clone + Send + Sync + 'static {
    /// Whether `key` is one of them.
    fn picks(key: &Key) -> bool;
}

macro_rules! picks {
    ($(#[$doc:meta])* $name:ident, $key:ident => $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name;
        impl Picks for $name {
            fn picks($key: &Key) -> bool {
                $rule
            }
        }
    };
}

picks!(
    /// For `flota up`.
    Everything, key => key.scope != Scope::Client && key.name != "token"
);
picks!(
    /// For `flota master`.
    Masters, key => matches!(key.scope, Scope::Master | Scope::All) && key.name != "token"
);
picks!(
    /// For `flota worker`.
    Workers, key => matches!(key.scope, Scope::Worker | Scope::All) && key.name != "token"
);
picks!(
    /// For clients of the broker.
    Brokers, key => matches!(key.name, "mqtt_url" | "mqtt_user" | "mqtt_password" | "topic_root")
);

picks!(
    /// For what works on the store itself.
    Stores, key => matches!(key.name, "data_dir" | "store_url")
);

/// The settings that were given as flags.
#[derive(Clone, Debug)]
pub struct SettingFlags<P> {
    /// As [`flota_common::config::Sources`] takes them.
    pub given: Vec<(String, String)>,
    picks: PhantomData<P>,
}

/// The name of the flag's value in the configuration: a secret is given by its file, because everybody on a machine can
/// read the arguments of a process.
fn setting(key: &Key) -> String {
    if key.secret() { format!("{}_file", key.name) } else { key.name.to_owned() }
}

fn argument(key: &'static Key) -> Arg {
    let name = setting(key);
    let value = match key.shape {
        Shape::Secret => "PATH".to_owned(),
        Shape::Map => "NAME=VALUE,...".to_owned(),
        Shape::List => "LIST".to_owned(),
        Shape::One if key.name.ends_with("_listen") => "ADDRESS".to_owned(),
        Shape::One if key.name == "grpc_advertise" => "HOST:PORT".to_owned(),
        Shape::One if key.name == "simple_workers" || key.name == "verify" => "WHICH".to_owned(),
        Shape::One if key.name == "log" => "FILTER".to_owned(),
        Shape::One if key.name == "randomx_threads" => "NUMBER".to_owned(),
        Shape::One => key.name.rsplit('_').next().unwrap_or(key.name).to_uppercase(),
    };
    let what = if key.secret() { format!("File that holds the {}", key.help) } else { key.help.to_owned() };
    let variable = if key.secret() { format!("{}_FILE", key.variable()) } else { key.variable() };
    let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
    let arg = Arg::new(name.clone()).long(name.replace('_', "-")).value_name(value);
    arg.help(format!("{what} [env: {variable}]{default}")).help_heading("Settings")
}

impl<P: Picks> clap::FromArgMatches for SettingFlags<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = KEYS.iter().filter(|key| P::picks(key)).map(setting);
        let given =
            names.filter_map(|name| matches.get_one::<String>(&name).map(|value| (name.clone(), value.clone())));
        Ok(Self { given: given.collect(), picks: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<P: Picks> clap::Args for SettingFlags<P> {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().filter(|key| P::picks(key)).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
