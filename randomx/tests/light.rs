//! Light mode against the reference, compiled and interpreted, on every kind of page that this machine grants.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use flota_randomx::{Cache, Flags, Pages, Vm};
use support::{KEYS, check, piped};

fn check_all(flags: Flags, largest: Pages) {
    let mut cache = Arc::new(Cache::with(flags, largest, KEYS[0]).unwrap());
    assert_eq!(cache.is_jit(), flags.is_jit());
    println!("{} pages, asked for {largest}", cache.pages());
    assert!(cache.pages() <= largest);
    check(&mut Vm::light(&cache).unwrap(), KEYS[0]);
    Arc::get_mut(&mut cache).unwrap().reset(KEYS[1]);
    assert_eq!(cache.key(), KEYS[1]);
    check(&mut Vm::light(&cache).unwrap(), KEYS[1]);
}

#[test]
fn the_vectors_hold_with_compiled_programs_on_all_pages() {
    let flags = Flags::detect();
    assert!(cfg!(not(target_arch = "x86_64")) || flags.is_jit());
    for largest in Pages::LADDER {
        check_all(flags, largest);
    }
}

#[test]
fn the_vectors_hold_with_interpreted_programs_on_all_pages() {
    for largest in Pages::LADDER {
        check_all(Flags::detect().interpreted(), largest);
    }
}

#[test]
fn an_empty_key_and_an_empty_input_are_valid() {
    let mut vm = Vm::light(&Arc::new(Cache::new(b"").unwrap())).unwrap();
    let alone = hex::encode(vm.hash(b""));
    assert_eq!(piped(&mut vm, &[b"", b"x", b""]), [alone.clone(), hex::encode(vm.hash(b"x")), alone]);
    assert!(piped(&mut vm, &[]).is_empty());
}
