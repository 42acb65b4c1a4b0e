//! The reference vectors, from the library's own tests (src/tests/tests.cpp), and how a VM is held against them.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::Write;

use flota_randomx::{Batch, HASH_BYTES, Vm};

pub const KEYS: [&[u8]; 2] = [b"test key 000", b"test key 001"];

const C: &[u8] = b"sed do eiusmod tempor incididunt ut labore et dolore magna aliqua";
const E: &str = "0b0b98bea7e805e0010a2126d287a2a0cc833d312cb786385a7c2f9de69d25537f584a9bc9977b00000000666fd8753bf61a8631f12984e3fd44f4014eca629276817b56f32e9b68bd82f416";

/// Inputs and hashes of one of the [`KEYS`].
pub fn vectors(key: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    if key == KEYS[0] {
        vec![
            (b"This is a test".to_vec(), "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"),
            (
                b"Lorem ipsum dolor sit amet".to_vec(),
                "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969",
            ),
            (C.to_vec(), "c36d4ed4191e617309867ed66a443be4075014e2b061bcdaf9ce7b721d2b77a8"),
        ]
    } else {
        assert_eq!(key, KEYS[1]);
        vec![
            (C.to_vec(), "e9ff4503201c0c2cca26d285c93ae883f9b1d30c9eb240b820756f2d5a7905fc"),
            (hex::decode(E).unwrap(), "c56414121acda1713c2f2a819d8ae38aed7c80c35c2a769298d34f03833cd5f1"),
        ]
    }
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages that are free now: reserved by this test where it may (it runs as root), and then given back.
pub struct HugePages {
    added: u64,
}

impl HugePages {
    /// `None`, loudly, where fewer than `count` of 2 MiB are to be had.
    pub fn reserve(count: u64) -> Option<Self> {
        let meminfo = |field: &str| {
            let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
        };
        let free = || meminfo("HugePages_Free").saturating_sub(meminfo("HugePages_Rsvd"));
        let usual = meminfo("Hugepagesize") == 2048;
        if usual && free() >= count {
            return Some(Self { added: 0 });
        }
        let added = count.saturating_sub(free());
        // Memory that is scattered, or taken by page caches, gives fewer than asked.
        if usual && change_pool(|pages| pages + added) {
            let reserved = Self { added };
            if free() >= count {
                return Some(reserved);
            }
        }
        say(&format!("SKIPPED on reserved huge pages: {count} are needed (sysctl vm.nr_hugepages={count})"));
        None
    }
}

fn change_pool(change: impl FnOnce(u64) -> u64) -> bool {
    let pages = fs::read_to_string(POOL).ok().and_then(|text| text.trim().parse().ok());
    pages.is_some_and(|pages| fs::write(POOL, change(pages).to_string()).is_ok())
}

/// Also where the test passes: what is printed otherwise is seen only where it fails.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Others may have reserved some meanwhile.
        if self.added > 0 && !change_pool(|pages| pages.saturating_sub(self.added)) {
            say(&format!("{} huge pages that a test reserved could not be given back", self.added));
        }
    }
}

struct List {
    inputs: Vec<Vec<u8>>,
    taken: usize,
    hashes: Vec<String>,
}

impl Batch for List {
    fn next(&mut self) -> Option<&[u8]> {
        self.taken += 1;
        self.inputs.get(self.taken - 1).map(Vec::as_slice)
    }
    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        self.hashes.push(hex::encode(hash));
    }
}

/// The hashes of `inputs`, pipelined.
pub fn piped(vm: &mut Vm, inputs: &[&[u8]]) -> Vec<String> {
    let mut list = List { inputs: inputs.iter().map(|i| i.to_vec()).collect(), taken: 0, hashes: Vec::new() };
    vm.run(&mut list);
    list.hashes
}

/// Every vector of `key`, one by one and pipelined.
pub fn check(vm: &mut Vm, key: &[u8]) {
    let vectors = vectors(key);
    for (input, hash) in &vectors {
        assert_eq!(hex::encode(vm.hash(input)), *hash);
    }
    let inputs: Vec<&[u8]> = vectors.iter().map(|(input, _)| input.as_slice()).collect();
    let hashes: Vec<&str> = vectors.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(piped(vm, &inputs), hashes);
}
