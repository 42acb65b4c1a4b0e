//! `flota mine`: where work to mine comes from.

use clap::{Args, Subcommand};

use super::parse::priority;

/// `flota mine`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        flota mine solo --node http://127.0.0.1:18081 --wallet 4...\n  \
        flota mine pool --pool stratum+ssl://pool.example.org:3333 --user 4...\n  \
        flota mine list\n\nBlocks and shares are the wallet's that you give, and nobody else's: there is no donation. \
        What is mined goes behind other jobs (--priority)."
)]
pub struct Mine {
    /// What to do; without it: list
    #[command(subcommand)]
    pub command: Option<MineCommand>,
}

/// `flota mine …`
#[derive(Debug, Subcommand)]
pub enum MineCommand {
    /// Mine on a Monero node, for its blocks
    Solo(MineSolo),
    /// Mine for a pool; further pools are used while those before them are down
    Pool(MinePool),
    /// List where work comes from and what became of it
    List,
    /// Show one: its work, shares, blocks
    Show {
        /// Its name
        id: String,
    },
    /// Start those that are stopped
    Start {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Stop: their work is taken off the workers
    Stop {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Stop and forget, with all counters
    Remove {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// What every source has.
#[derive(Debug, Args)]
pub struct MineCommon {
    /// A name for it [default: monerod or stratum, with a number where that is taken]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Of its jobs: 0 to 9, 9 first; or low, normal, high [default: low]
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Do not start it yet
    #[arg(long)]
    pub stopped: bool,
    /// File that holds the password; - reads it from the standard input [env: FLOTA_MINE_PASSWORD, FLOTA_MINE_PASSWORD_FILE]
    #[arg(long, value_name = "PATH")]
    pub password_file: Option<String>,
}

/// `flota mine solo`
#[derive(Debug, Args)]
pub struct MineSolo {
    /// The node's RPC
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:18081")]
    pub node: String,
    /// Whom blocks pay: the wallet's primary address
    #[arg(long, value_name = "ADDRESS")]
    pub wallet: String,
    /// Of the node's --rpc-login
    #[arg(long)]
    pub user: Option<String>,
    /// Of every source.
    #[command(flatten)]
    pub common: MineCommon,
}

/// `flota mine pool`
#[derive(Debug, Args)]
pub struct MinePool {
    /// stratum+tcp://HOST:PORT or stratum+ssl://HOST:PORT; may be repeated, the first one first
    #[arg(long = "pool", value_name = "URL", required = true)]
    pub pools: Vec<String>,
    /// The login at the pools, mostly a wallet's address
    #[arg(long)]
    pub user: String,
    /// What the pools call this fleet
    #[arg(long, value_name = "NAME")]
    pub rig_id: Option<String>,
    /// SHA-256 of the pools' certificate in hex, trusted instead of the system's authorities
    #[arg(long, value_name = "HEX")]
    pub tls_fingerprint: Option<String>,
    /// The top byte of the nonce is the pools', also where it is 0
    #[arg(long)]
    pub nicehash: bool,
    /// Of every source.
    #[command(flatten)]
    pub common: MineCommon,
}
