//! The machine against the library's.

mod interpret;

use std::sync::Arc;

use self::interpret::Interpreter;
use super::program::{FREQUENCIES, INSTRUCTIONS, Instruction, Kind};
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
    Arc::new(Dataset::of(region, Pages::Huge, crate::Origin::Computed))
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

/// Gives up as soon as it is asked, once it has some hashes.
struct Quitter {
    inputs: Inputs,
    after: usize,
}

impl Batch for Quitter {
    fn next(&mut self) -> Option<&[u8]> {
        self.inputs.next()
    }
    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        self.inputs.hashed(hash);
    }
    fn gives_up(&self) -> bool {
        self.inputs.hashes.len() >= self.after
    }
}

#[test]
fn a_batch_that_gives_up_leaves_the_machine_usable() {
    let dataset = dataset();
    let mut machine = Machine::new(&dataset, 3).expect("the processor can");
    let inputs: Vec<Vec<u8>> = (0..7_u8).map(|input| vec![input]).collect();
    let mut all = batch(&inputs);
    machine.run(&mut all);
    for after in [0, 1, 3, 4] {
        let mut quitter = Quitter { inputs: batch(&inputs), after };
        machine.run(&mut quitter);
        assert_eq!(quitter.inputs.hashes, all.hashes[..after.next_multiple_of(3)], "whole rounds only");
    }
    let mut again = batch(&inputs);
    machine.run(&mut again);
    assert_eq!(again.hashes, all.hashes);
}

#[test]
#[ignore = "takes minutes"]
fn many_hashes_are_the_librarys() {
    compare(number("COUNT", 1000) as usize, number("SEED", 99));
}

/// The first opcode of an operation.
fn opcode(kind: Kind) -> u8 {
    let before = FREQUENCIES.iter().take_while(|(other, _)| *other != kind).map(|(_, count)| count).sum::<usize>();
    u8::try_from(before).unwrap()
}

/// Constants that mean something to an instruction.
fn constant(next: &mut impl FnMut() -> u64) -> u32 {
    match next() % 8 {
        0 => 0,
        1 => 1 << (next() % 32),
        2 => (next() % 256) as u32,
        3 => ((next() % 256) as u32).wrapping_neg(),
        4 => u32::MAX >> (next() % 32),
        _ => next() as u32,
    }
}

/// A program of such operations, each as likely as another.
fn program(kinds: &[Kind], next: &mut impl FnMut() -> u64) -> Program {
    let mut words: Vec<u64> = (0..16).map(|_| next()).collect();
    for _ in 0..INSTRUCTIONS {
        let kind = kinds[(next() % kinds.len() as u64) as usize];
        let [dst, src, modifier, ..] = next().to_le_bytes();
        // One in four has the same register twice.
        let src = if next().is_multiple_of(4) { dst } else { src };
        words.push(Instruction::new(opcode(kind), dst, src, modifier, constant(next)).bits());
    }
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    Program::new(&bytes.try_into().unwrap())
}

/// Runs programs side by side on scratchpads of noise, with and without AVX-512, and one after the other by the specification.
fn check(machine: &mut Machine, dataset: &Dataset, programs: &[Program], next: &mut impl FnMut() -> u64) {
    let lanes = programs.len();
    let mut scratchpads: Vec<Vec<u8>> =
        (0..lanes).map(|_| (0..SCRATCHPAD_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect()).collect();
    let begun: Vec<u32> = (0..lanes).map(|_| (next() % 4) as u32).collect();
    let before = scratchpads.clone();
    let mut ends = Vec::new();
    for (lane, scratchpad) in scratchpads.iter_mut().enumerate() {
        let (program, dataset) = (&programs[lane], dataset.bytes());
        let mut interpreter = Interpreter { program, scratchpad, dataset, rounding: begun[lane] };
        ends.push((interpreter.run(), interpreter.rounding));
    }
    for wide in [true, false] {
        if wide && !machine.compiler.wide() {
            continue;
        }
        for lane in 0..lanes {
            machine.load(lane, &programs[lane]);
            machine.frame.lanes[lane].rounding = begun[lane] * 4;
            // SAFETY: the scratchpad is that large, and nobody else uses it.
            unsafe { std::ptr::copy_nonoverlapping(before[lane].as_ptr(), machine.scratchpad(lane), SCRATCHPAD_BYTES) };
        }
        let mut compiler = machine.compiler.with(wide);
        let code = compiler.compile(programs, &mut machine.frame);
        // SAFETY: it was compiled for this machine.
        unsafe { machine.code.run(code) };
        for (lane, (file, rounding)) in ends.iter().enumerate() {
            let ended = &machine.frame.lanes[lane];
            assert_eq!(ended.file, *file, "registers of lane {lane} of {lanes}");
            assert_eq!(ended.rounding, rounding * 4);
            // SAFETY: as above.
            let ours = unsafe { std::slice::from_raw_parts(machine.scratchpad(lane), SCRATCHPAD_BYTES) };
            assert!(ours == scratchpads[lane], "scratchpad of lane {lane} of {lanes}");
        }
    }
}

/// Programs of all operations, and of each one among branches, swaps and what fills registers.
#[test]
fn programs_do_what_the_specification_says() {
    let dataset = dataset();
    let mut next = noise(11);
    let all = FREQUENCIES.map(|(kind, _)| kind);
    let mut machine = Machine::new(&dataset, LANES).expect("the processor can");
    for lanes in 1..=LANES {
        let programs: Vec<Program> = (0..lanes).map(|_| program(&all, &mut next)).collect();
        check(&mut machine, &dataset, &programs, &mut next);
    }
    for kind in all {
        let some = [kind, kind, kind, kind, Kind::Branch, Kind::Swap, Kind::FloatMul, Kind::FloatAdd, Kind::XorMemory];
        check(&mut machine, &dataset, &[program(&some, &mut next), program(&some, &mut next)], &mut next);
    }
}

/// Seconds of this thread on a processor.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// A number from the environment.
fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(or)
}

/// Prints how fast each number of lanes is beside the library, which takes turns with them on one thread and one dataset.
#[test]
#[ignore = "a measurement: ROUNDS rounds (40) of SLICE hashes (24) each"]
fn speed() {
    let region = Region::new(DATASET_BYTES, Pages::Huge).unwrap();
    let mut next = noise(3);
    for at in (0..DATASET_BYTES).step_by(8) {
        // SAFETY: within the region, which nobody else uses.
        unsafe { region.memory().as_ptr().add(at).cast::<u64>().write(next()) };
    }
    let dataset = Arc::new(Dataset::of(region, Pages::Huge, crate::Origin::Computed));
    let mut library = Vm::fast_with(Flags::detect(), &dataset).unwrap();
    let mut machines: Vec<Machine> = (1..=LANES).map(|lanes| Machine::new(&dataset, lanes).unwrap()).collect();
    let slice = number("SLICE", 24);
    let mut times = vec![Vec::new(); LANES + 1];
    for round in 0..number("ROUNDS", 40) {
        let inputs: Vec<Vec<u8>> = (0..slice).map(|input| (round * slice + input).to_le_bytes().to_vec()).collect();
        for (lanes, times) in times.iter_mut().enumerate() {
            let mut batch = batch(&inputs);
            let begun = cpu();
            match lanes {
                0 => library.run(&mut batch),
                _ => machines[lanes - 1].run(&mut batch),
            }
            times.push(cpu() - begun);
        }
    }
    println!(
        "pages: {}; hashes a second of CPU time, and as a multiple of the library's: quartiles of the rounds",
        dataset.pages()
    );
    for (lanes, own) in times.iter().enumerate() {
        let rate = slice as f64 * own.len() as f64 / own.iter().sum::<f64>();
        let mut ratios: Vec<f64> = times[0].iter().zip(own).map(|(library, own)| library / own).collect();
        ratios.sort_by(f64::total_cmp);
        let quartiles = [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4]);
        let name = if lanes == 0 { "library".to_owned() } else { format!("{lanes} lanes") };
        println!("{name}: {rate:.1}, {quartiles:.3?}");
    }
}
