//! The documents are true where a machine can tell: settings, links, and what README promises.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use flota_common::config::{KEYS, Key, Scope, Shape};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("failed to read {path}: {e}"))
}

fn row(key: &Key) -> String {
    let who = match key.scope {
        Scope::All => "all",
        Scope::Master => "master",
        Scope::Worker => "worker",
        Scope::Client => "client",
    };
    let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
    let secret = if key.shape == Shape::Secret { " (secret)" } else { "" };
    format!("| `{}`{secret} | {who} | {default} | {} | {} |\n", key.variable(), key.help, key.allowed)
}

/// The table of docs/configuration.md is made from the table that the program reads. `FLOTA_WRITE_DOCS=1` writes it anew.
#[test]
fn every_setting_is_documented_as_it_is() {
    const BEGIN: &str = "<!-- settings -->\n";
    const END: &str = "<!-- end of settings -->";
    let path = "docs/configuration.md";
    let text = read(path);
    let (before, rest) = text.split_once(BEGIN).expect("no place for the settings");
    let (_, after) = rest.split_once(END).expect("no end of the settings");
    let mut table =
        String::from("\n| variable | read by | default | what for | allowed |\n| --- | --- | --- | --- | --- |\n");
    for key in KEYS {
        let _ = write!(table, "{}", row(key));
    }
    let expected = format!("{before}{BEGIN}{table}\n{END}{after}");
    if std::env::var_os("FLOTA_WRITE_DOCS").is_some() {
        fs::write(root().join(path), &expected).expect("failed to write");
    }
    assert!(read(path) == expected, "{path} is out of date: FLOTA_WRITE_DOCS=1 cargo test -p flota-tests --test docs");
}

fn documents() -> Vec<PathBuf> {
    let folder = |path: PathBuf| {
        let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("failed to read {}: {e}", path.display()));
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
    };
    let mut all: Vec<PathBuf> = folder(root());
    all.extend::<Vec<PathBuf>>(folder(root().join("docs")));
    all
}

#[test]
fn links_between_documents_and_sources_lead_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap_or_default();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !document.parent().is_some_and(|folder| folder.join(path).exists()) {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// In ARCHITECTURE.md, what stands in backticks and looks like a path is one.
#[test]
fn paths_in_the_architecture_exist() {
    let text = read("ARCHITECTURE.md");
    let dead: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/') && !word.contains([' ', '{', ':', '*']) && !word.starts_with(['/', 'P', 'G']))
        .filter(|word| !root().join(word).exists())
        .collect();
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = read("README.md");
    let first: Vec<&str> = readme.lines().take(2).map(str::trim_start).collect();
    assert!(first[0].starts_with("make run") && first[1].starts_with("make test"), "{first:?}");
}

/// The image is built from what Dockerfile names: a manifest that is missing there stops the build.
#[test]
fn the_image_knows_every_crate_of_the_workspace() {
    let workspace = read("Cargo.toml");
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")).expect("no members");
    let (dockerfile, context) = (read("Dockerfile"), read(".dockerignore"));
    let named = |text: &str, line: &str| text.lines().any(|candidate| candidate == line);
    let missing: Vec<&str> = members
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|member| {
            !named(&dockerfile, &format!("COPY {member}/Cargo.toml {member}/"))
                || !(named(&context, &format!("!{member}")) || named(&context, &format!("!{member}/Cargo.toml")))
        })
        .collect();
    assert!(members.contains("\"master\"") && missing.is_empty(), "not in Dockerfile or .dockerignore: {missing:?}");
}
