//! Every target over its corpus and over mutations of it: what libFuzzer does for hours, for some seconds and with every run.
//! `FLOTA_FUZZ_ROUNDS=n` mutates each file n times (100 without it).

use std::path::{Path, PathBuf};

use flota_fuzz::TARGETS;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const BYTES_MAX: usize = 64 * 1024;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let listed = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("no corpus in {}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file that can be read")).collect()
}

/// Flips, drops, doubles, splices: one to eight changes.
fn mutate(rng: &mut StdRng, seeds: &[Vec<u8>], from: &[u8]) -> Vec<u8> {
    let mut data = from.to_vec();
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..=data.len());
        let end = rng.random_range(at..=data.len().min(at + 64));
        match rng.random_range(0..7) {
            0 if at < data.len() => data[at] ^= 1 << rng.random_range(0..8),
            1 if at < data.len() => data[at] = rng.random(),
            2 => drop(data.drain(at..end)),
            3 => data.insert(at, rng.random()),
            4 => {
                let piece = data[at..end].to_vec();
                drop(data.splice(at..at, piece));
            }
            5 => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let cut = rng.random_range(0..=other.len());
                drop(data.splice(at..end, other[cut..].iter().copied().take(256)));
            }
            _ => {
                let words: [&[u8]; 8] = [b"-1", b"1e999", b"18446744073709551615", b"null", b"{", b"\"", b"\0", b"[[["];
                drop(data.splice(at..end, words[rng.random_range(0..words.len())].iter().copied()));
            }
        }
        data.truncate(BYTES_MAX);
    }
    data
}

#[test]
fn no_bytes_from_outside_make_a_part_panic() {
    let rounds = std::env::var("FLOTA_FUZZ_ROUNDS").ok().map_or(100, |text| text.parse().expect("a number"));
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        assert!(seeds.len() >= 3, "a corpus of {} files is none", seeds.len());
        let mut rng = StdRng::seed_from_u64(7);
        for seed in &seeds {
            target(seed);
            for _ in 0..rounds {
                let data = mutate(&mut rng, &seeds, seed);
                let outcome = std::panic::catch_unwind(|| target(&data));
                assert!(outcome.is_ok(), "{name} panics on {:?}", String::from_utf8_lossy(&data));
            }
        }
    }
}
