//! Fast mode against the reference, compiled and interpreted, on every kind of page that this machine grants. A target of its own:
//! each dataset takes some 10 to 45 s of two cores.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::thread;

use flota_randomx::{Build, Cache, DATASET_BYTES, Dataset, Flags, ITEM_BYTES, ITEMS, Pages, Vm};
use support::{HugePages, KEYS, check, say};

fn dataset(cache: &Arc<Cache>, largest: Pages) -> Arc<Dataset> {
    let build = Build::with(thread::available_parallelism().map_or(1, usize::from), largest);
    let dataset = Dataset::build(cache, &build).unwrap();
    assert_eq!(build.fraction(), 1.0);
    Arc::new(dataset)
}

/// Some of its items, those at the ends of what one thread computes at a time among them.
fn check_items(dataset: &Dataset, cache: &Cache) {
    let bytes = dataset.bytes();
    assert_eq!(bytes.len(), DATASET_BYTES);
    let chunk_ends = (0..ITEMS).step_by(32_768 * 37).flat_map(|start| [start.saturating_sub(1), start]);
    for index in chunk_ends.chain([1, 7, 8, 10_000_000, 20_000_000, 30_000_000, ITEMS - 9, ITEMS - 1]) {
        assert_eq!(bytes[index * ITEM_BYTES..][..ITEM_BYTES], cache.item(index), "item {index}");
    }
}

/// For a dataset and a few scratchpads.
const HUGE_PAGES: u64 = (DATASET_BYTES as u64).div_ceil(2 << 20) + 8;

/// One test, so that never two datasets are in memory.
#[test]
fn the_vectors_hold_with_compiled_and_interpreted_programs_on_all_pages() {
    let mut cache = Arc::new(Cache::with(Flags::detect(), Pages::Transparent, KEYS[0]).unwrap());
    let mut granted = Vec::new();
    for largest in Pages::LADDER {
        let reserved = (largest == Pages::Huge).then(|| HugePages::reserve(HUGE_PAGES));
        if matches!(reserved, Some(None)) {
            continue;
        }
        let dataset = dataset(&cache, largest);
        if reserved.is_some() {
            assert_eq!(dataset.pages(), Pages::Huge);
        }
        check_items(&dataset, &cache);
        check(&mut Vm::fast(&dataset).unwrap(), KEYS[0]);
        for flags in [Flags::detect(), Flags::detect().interpreted()] {
            check(&mut Vm::fast_with(flags, &dataset).unwrap(), KEYS[0]);
        }
        granted.push(dataset.pages());
        if dataset.pages() == Pages::Small {
            break;
        }
    }
    say(&format!("RandomX vectors in fast mode: checked on pages {granted:?}"));
    Arc::get_mut(&mut cache).unwrap().reset(KEYS[1]);
    let dataset = dataset(&cache, Pages::Transparent);
    check(&mut Vm::fast(&dataset).unwrap(), KEYS[1]);
    for flags in [Flags::detect(), Flags::detect().interpreted()] {
        check(&mut Vm::fast_with(flags, &dataset).unwrap(), KEYS[1]);
    }
}
