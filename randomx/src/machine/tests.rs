//! The machine against the library's.

use std::sync::Arc;

use super::*;
use crate::region::Region;
use crate::{DATASET_BYTES, Flags, Pages, Vm};

/// Numbers that look random, the same each time.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// Both machines only read it, so anything will do: 8 MiB again and again.
fn dataset() -> Arc<Dataset> {
    let mut next = noise(1);
    let part: Vec<u8> = (0..1 << 20).flat_map(|_| next().to_le_bytes()).collect();
    let region = Region::repeating(&part, DATASET_BYTES).expect("there is memory");
    Arc::new(Dataset::of(region, Pages::Huge))
}

struct Inputs {
    inputs: Vec<Vec<u8>>,
    taken: usize,
    hashes: Vec<[u8; HASH_BYTES]>,
}

impl Batch for Inputs {
    fn next(&mut self) -> Option<&[u8]> {
        self.taken += 1;
        self.inputs.get(self.taken - 1).map(Vec::as_slice)
    }
    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        self.hashes.push(hash);
    }
}

fn batch(inputs: &[Vec<u8>]) -> Inputs {
    Inputs { inputs: inputs.to_vec(), taken: 0, hashes: Vec::new() }
}

fn compare(count: usize, seed: u64) {
    let dataset = dataset();
    let mut next = noise(seed);
    let mut library = Vm::fast_with(Flags::detect(), &dataset).unwrap();
    for lanes in 1..=LANES {
        let mut machine = Machine::new(&dataset, lanes).expect("the processor can");
        let inputs: Vec<Vec<u8>> = (0..count).map(|_| next().to_le_bytes()[..(next() % 9) as usize].to_vec()).collect();
        let [mut ours, mut theirs] = [batch(&inputs), batch(&inputs)];
        machine.run(&mut ours);
        library.run(&mut theirs);
        for (index, (ours, theirs)) in ours.hashes.iter().zip(&theirs.hashes).enumerate() {
            assert_eq!(hex::encode(ours), hex::encode(theirs), "input {index} {:?} in {lanes} lanes", inputs[index]);
        }
        assert_eq!(ours.hashes.len(), theirs.hashes.len());
    }
}

#[test]
fn hashes_are_the_librarys() {
    compare(33, 7);
}

#[test]
#[ignore = "takes minutes"]
fn many_hashes_are_the_librarys() {
    let number = |name, or| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(or);
    compare(number("COUNT", 1000) as usize, number("SEED", 99));
}

/// Seconds of this thread on a processor.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let number = |name, or| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(or);
    let region = Region::new(DATASET_BYTES, Pages::Huge).unwrap();
    let mut next = noise(3);
    for at in (0..DATASET_BYTES).step_by(8) {
        // SAFETY: within the region.
        unsafe { region.memory().as_ptr().add(at).cast::<u64>().write(next()) };
    }
    let dataset = Arc::new(Dataset::of(region, Pages::Huge));
    println!("pages {}", dataset.pages());
    let list = std::env::var("LANES").unwrap_or("12".into());
    let mut machines: Vec<(u32, Machine)> = list
        .split(',')
        .map(|item| {
            let lanes = item;
            (lanes.parse().unwrap(), Machine::new(&dataset, lanes.parse().unwrap()).unwrap())
        })
        .collect();
    let mut library = Vm::fast_with(Flags::detect(), &dataset).unwrap();
    let hashes = number("SLICE", 48);
    let mut times = vec![Vec::new(); machines.len() + 1];
    let mut n = 0_u64;
    for _ in 0..number("ROUNDS", 40) {
        for which in 0..=machines.len() {
            let inputs: Vec<Vec<u8>> = (0..hashes).map(|i| (n + i).to_le_bytes().to_vec()).collect();
            let mut batch = batch(&inputs);
            let begun = cpu();
            if which == 0 {
                library.run(&mut batch);
            } else {
                machines[which - 1].1.run(&mut batch);
            }
            times[which].push(cpu() - begun);
        }
        n += hashes;
    }
    let median = |times: &Vec<f64>| {
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], times.iter().sum::<f64>(), sorted[0])
    };
    let base = median(&times[0]);
    let pairs = |times: &Vec<f64>, base: &Vec<f64>| {
        let mut ratios: Vec<f64> = times.iter().zip(base).map(|(ours, theirs)| theirs / ours).collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[ratios.len() / 4], ratios[ratios.len() / 2], ratios[ratios.len() * 3 / 4])
    };
    let first = times[0].clone();
    for (which, times) in times.iter().enumerate() {
        let (mid, sum, least) = median(times);
        let name = if which == 0 { "library".into() } else { list.split(',').nth(which - 1).unwrap().to_owned() };
        println!(
            "{name:>10}: {:.1} H/s, pairs {:.3?}, medians {:.3}, sums {:.3}, best {:.3}",
            hashes as f64 / mid,
            pairs(times, &first),
            base.0 / mid,
            base.1 / sum,
            base.2 / least
        );
    }
}
