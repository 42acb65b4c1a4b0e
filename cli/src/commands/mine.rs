//! `flota mine …`

use flota_proto::rest::Priority;
use flota_proto::sources::{MonerodConfig, NewSource, PoolConfig, Source, SourceState, Sources, StratumConfig};
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{keep_first, stdin_text};
use crate::api::{Api, segment};
use crate::args::{Mine, MineCommand, MineCommon, MinePool, MineSolo};
use crate::failure::Failure;
use crate::output::{Hue, Out, ago, duration, hashrate, thousands};

const PASSWORD: &str = "FLOTA_MINE_PASSWORD";

pub async fn run(api: &Api, out: &Out, args: Mine) -> Result<(), Failure> {
    match args.command.unwrap_or(MineCommand::List) {
        MineCommand::Solo(args) => solo(api, out, args).await,
        MineCommand::Pool(args) => pool(api, out, args).await,
        MineCommand::List => list(api, out).await,
        MineCommand::Show { id } => show(api, out, &id).await,
        MineCommand::Start { ids } => tell(api, out, "start", &ids).await,
        MineCommand::Stop { ids } => tell(api, out, "stop", &ids).await,
        MineCommand::Remove { ids } => remove(api, out, &ids).await,
    }
}

async fn solo(api: &Api, out: &Out, args: MineSolo) -> Result<(), Failure> {
    let password = password(&args.common)?;
    let MineSolo { node, wallet, user, common } = args;
    let config = MonerodConfig { url: node, wallet_address: wallet, user, password };
    make(api, out, "monerod", &config, common).await
}

async fn pool(api: &Api, out: &Out, args: MinePool) -> Result<(), Failure> {
    let password = password(&args.common)?;
    let MinePool { pools, user, rig_id, tls_fingerprint, nicehash, common } = args;
    let pool = |url| PoolConfig {
        url,
        user: user.clone(),
        password: password.clone(),
        rig_id: rig_id.clone(),
        tls_fingerprint: tls_fingerprint.clone(),
        nicehash,
    };
    let config = StratumConfig { pools: pools.into_iter().map(pool).collect() };
    make(api, out, "stratum", &config, common).await
}

async fn make(api: &Api, out: &Out, kind: &str, config: &impl Serialize, common: MineCommon) -> Result<(), Failure> {
    let config = serde_json::value::to_raw_value(config).map_err(|error| Failure::Failed(error.to_string()))?;
    let new = NewSource {
        id: common.name,
        source: kind.to_owned(),
        config,
        priority: common.priority.map(Priority),
        requires: None,
        start: common.stopped.then_some(false),
    };
    let raw: Box<RawValue> = api.post("/sources", Some(&new)).await?;
    told(api, out, &raw)?;
    if !common.stopped && !out.json {
        let source: Source = api.parse(raw.get().as_bytes())?;
        out.hint(format!("Look with `flota mine show {}`, stop with `flota mine stop {}`.", source.id, source.id));
    }
    Ok(())
}

/// Never from an argument, which everybody on the machine can read.
fn password(common: &MineCommon) -> Result<Option<String>, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = common.password_file.clone().or_else(|| variable("FLOTA_MINE_PASSWORD_FILE"));
    let text = match (path, variable(PASSWORD)) {
        (None, None) => return Ok(None),
        // A flag is nearer than the environment.
        (_, Some(password)) if common.password_file.is_none() => password,
        (Some(path), _) if path == "-" => stdin_text()?,
        (Some(path), _) => std::fs::read_to_string(&path)
            .map_err(|error| Failure::Usage(format!("can't read the password from {path}: {error}")))?,
        (None, Some(password)) => password,
    };
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() { Err(Failure::Usage("the password is empty".into())) } else { Ok(Some(password)) }
}

async fn list(api: &Api, out: &Out) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, "/sources")).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    let sources: Sources = api.parse(&raw)?;
    if sources.items.is_empty() {
        return out.line("Nothing is mined. Begin with `flota mine solo --help` or `flota mine pool --help`.");
    }
    let mut table =
        out.table(&["SOURCE", "STATE", "HASHRATE", "HEIGHT", "ACCEPTED", "REJECTED", "STALE", "BLOCKS", "AT"]);
    for source in &sources.items {
        let height = source.work.as_ref().and_then(|work| work.height).map(|height| height.to_string());
        let counters = &source.counters;
        table.add_row([
            out.cell(Hue::Plain, &source.id),
            out.cell(hue(source.state), source.state.as_str()),
            out.cell(Hue::Plain, hashrate(source.hashrate)),
            out.cell(Hue::Plain, height.unwrap_or_default()),
            out.cell(Hue::Plain, thousands(counters.accepted)),
            out.cell(Hue::Plain, thousands(counters.rejected + counters.invalid)),
            out.cell(Hue::Plain, thousands(counters.stale)),
            out.cell(Hue::Plain, thousands(counters.blocks)),
            out.cell(Hue::Dim, source.connected_to.as_deref().unwrap_or("-")),
        ]);
    }
    out.line(table.trim_fmt())
}

async fn show(api: &Api, out: &Out, id: &str) -> Result<(), Failure> {
    let raw = api.bytes(api.request(Method::GET, &format!("/sources/{}", segment(id)))).await?;
    if out.json {
        return out.line(String::from_utf8_lossy(&raw).trim_end());
    }
    print(out, &api.parse(&raw)?)
}

fn print(out: &Out, source: &Source) -> Result<(), Failure> {
    let counters = &source.counters;
    let reasons: Vec<String> = counters.reasons.iter().map(|(why, n)| format!("{why} ({n})")).collect();
    let detail = if source.detail.is_empty() { String::new() } else { format!(": {}", source.detail) };
    let expected =
        source.expected_seconds.map(|seconds| duration(std::time::Duration::from_secs_f64(seconds.min(1e12))));
    let work = source.work.as_ref();
    let rows = [
        ("source", format!("{} ({})", out.paint(Hue::Bold, &source.id), source.source.as_str())),
        ("state", out.paint(hue(source.state), source.state.as_str()) + &detail),
        ("config", source.config.get().to_owned()),
        ("at", source.connected_to.clone().unwrap_or_default()),
        ("height", work.and_then(|work| work.height).map(|height| height.to_string()).unwrap_or_default()),
        ("difficulty", work.map(|work| thousands(work.difficulty)).unwrap_or_default()),
        ("seed", work.map(|work| work.seed_hash.clone()).unwrap_or_default()),
        ("next seed", work.and_then(|work| work.next_seed_hash.clone()).unwrap_or_default()),
        ("job", work.and_then(|work| work.job_id).map(|job| job.to_string()).unwrap_or_default()),
        ("hashrate", hashrate(source.hashrate)),
        ("effort", format!("{:.0} %", source.effort * 100.0)),
        ("one takes", expected.unwrap_or_default()),
        ("found", thousands(counters.found)),
        ("accepted", thousands(counters.accepted)),
        ("rejected", thousands(counters.rejected)),
        ("stale", thousands(counters.stale)),
        ("invalid", thousands(counters.invalid)),
        ("reasons", reasons.join(", ")),
        ("blocks", format!("{} on the main chain, {} orphaned", counters.blocks, counters.orphaned)),
        ("hashes", format!("{}, about {} in vain", thousands(counters.hashes), thousands(counters.wasted_hashes))),
        ("guests", if source.guests == 0 { String::new() } else { source.guests.to_string() }),
        ("accepted last", source.last_accepted_at.map(ago).unwrap_or_default()),
    ];
    out.pairs(&rows.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
}

async fn tell(api: &Api, out: &Out, what: &str, ids: &[String]) -> Result<(), Failure> {
    let mut refused = Ok(());
    for id in ids {
        let answer = api.post::<Box<RawValue>>(&format!("/sources/{}/{what}", segment(id)), None::<&()>).await;
        keep_first(out, &mut refused, answer.and_then(|raw| told(api, out, &raw)))?;
    }
    refused
}

async fn remove(api: &Api, out: &Out, ids: &[String]) -> Result<(), Failure> {
    let mut refused = Ok(());
    for id in ids {
        let answer = api.send(api.request(Method::DELETE, &format!("/sources/{}", segment(id)))).await;
        let said = answer.and_then(|_| if out.json { Ok(()) } else { out.line(format!("{id}  removed")) });
        keep_first(out, &mut refused, said)?;
    }
    refused
}

fn told(api: &Api, out: &Out, raw: &RawValue) -> Result<(), Failure> {
    if out.json {
        return out.line(raw.get());
    }
    let source: Source = api.parse(raw.get().as_bytes())?;
    out.line(format!("{}  {}", source.id, out.paint(hue(source.state), source.state.as_str())))
}

fn hue(state: SourceState) -> Hue {
    match state {
        SourceState::Mining => Hue::Green,
        SourceState::Connecting => Hue::Cyan,
        SourceState::Failing => Hue::Red,
        SourceState::Stopped => Hue::Dim,
    }
}
