//! `flota hash`: hashes, printed as `sha256sum` would: the hash, then what was hashed.

use flota_proto::kinds::{HashPayload, HashResult};
use flota_proto::rest::Priority;
use flota_proto::{Algorithm, HexBytes, Kind};
use serde_json::json;

use super::stdin_text;
use crate::api::Api;
use crate::args::Hash;
use crate::failure::Failure;
use crate::follow;
use crate::output::Out;

pub async fn run(api: &Api, out: &Out, args: Hash) -> Result<(), Failure> {
    check_key(args.algorithm, args.key.is_some())?;
    let inputs = inputs(args.inputs)?;
    let payload = HashPayload {
        key: args.key.as_deref().map(|key| bytes("the key", key, args.hex)).transpose()?,
        inputs: inputs.iter().map(|input| bytes("an input", input, args.hex)).collect::<Result<_, _>>()?,
    };
    let mut body = json!({"kind": Kind::Hash(args.algorithm).as_str(), "payload": payload});
    if let Some(priority) = args.priority {
        body["priority"] = json!(Priority(priority));
    }
    if args.no_cache {
        body["cache"] = json!(false);
    }
    let job = api.submit(&body, None).await?;
    let ended = follow::or_cancel(api, out, job.id, follow::until_ended(api, out, job.id)).await?;
    if out.json {
        out.line(String::from_utf8_lossy(&ended.raw).trim_end())?;
    } else if let Some(result) = &ended.job.result {
        let result: HashResult = api.parse(result.get().as_bytes())?;
        for (hash, input) in result.hashes.iter().zip(&inputs) {
            out.line(format!("{}  {input}", hash.to_hex()))?;
        }
    }
    follow::verdict(&ended.job)
}

fn check_key(algorithm: Algorithm, given: bool) -> Result<(), Failure> {
    let name = algorithm.as_str();
    match (algorithm.has_key(), given) {
        (true, false) => Err(Failure::Usage(format!("{name} needs a key: --key TEXT"))),
        (false, true) => Err(Failure::Usage(format!("{name} has no key: leave --key out"))),
        (true, true) | (false, false) => Ok(()),
    }
}

fn inputs(given: Vec<String>) -> Result<Vec<String>, Failure> {
    if given != ["-"] {
        return Ok(given);
    }
    let lines: Vec<String> = stdin_text()?.lines().map(str::to_owned).collect();
    if lines.is_empty() { Err(Failure::Usage("the standard input has no line to hash".into())) } else { Ok(lines) }
}

fn bytes(what: &str, text: &str, is_hex: bool) -> Result<HexBytes, Failure> {
    if !is_hex {
        return Ok(HexBytes(text.as_bytes().to_vec()));
    }
    let decoded = hex::decode(text).map(HexBytes);
    decoded.map_err(|error| Failure::Usage(format!("{what} '{text}' is no hex: {error}")))
}
