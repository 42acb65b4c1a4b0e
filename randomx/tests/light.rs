//! Light mode against the reference, compiled and interpreted, on every kind of page that this machine grants.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use flota_randomx::{CACHE_BYTES, Cache, Flags, Pages, Vm};
use support::{HugePages, KEYS, check, piped, say};

/// For two caches, as another test makes one beside this, and scratchpads.
const HUGE_PAGES: u64 = 2 * (CACHE_BYTES as u64).div_ceil(2 << 20) + 8;

/// On all kinds of pages, compiled and interpreted.
fn check_on_all_pages(flags: &[Flags]) {
    for largest in Pages::LADDER {
        let reserved = (largest == Pages::Huge).then(|| HugePages::reserve(HUGE_PAGES));
        if matches!(reserved, Some(None)) {
            continue;
        }
        flags.iter().for_each(|flags| check_all(*flags, largest));
    }
}

fn check_all(flags: Flags, largest: Pages) {
    let mut cache = Arc::new(Cache::with(flags, largest, KEYS[0]).unwrap());
    assert_eq!(cache.is_jit(), flags.is_jit());
    say(&format!("RandomX vectors in light mode: on pages {}, asked for {largest}", cache.pages()));
    assert!(cache.pages() <= largest && (largest < Pages::Huge || cache.pages() == Pages::Huge));
    check(&mut Vm::light(&cache).unwrap(), KEYS[0]);
    Arc::get_mut(&mut cache).unwrap().reset(KEYS[1]);
    assert_eq!(cache.key(), KEYS[1]);
    check(&mut Vm::light(&cache).unwrap(), KEYS[1]);
}

/// One test: what one reserves of huge pages the other would take away.
#[test]
fn the_vectors_hold_with_compiled_and_interpreted_programs_on_all_pages() {
    let flags = Flags::detect();
    assert!(cfg!(not(target_arch = "x86_64")) || flags.is_jit());
    check_on_all_pages(&[flags, flags.interpreted()]);
}

#[test]
fn an_empty_key_and_an_empty_input_are_valid() {
    let mut vm = Vm::light(&Arc::new(Cache::new(b"").unwrap())).unwrap();
    let alone = hex::encode(vm.hash(b""));
    assert_eq!(piped(&mut vm, &[b"", b"x", b""]), [alone.clone(), hex::encode(vm.hash(b"x")), alone]);
    assert!(piped(&mut vm, &[]).is_empty());
}
