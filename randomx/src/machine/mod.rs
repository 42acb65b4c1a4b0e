//! A virtual machine for fast mode on x86-64, made from the specification: it computes several hashes side by side on one thread, each
//! with a scratchpad of its own, so that what one of them waits for arrives while the others compute. The library computes one at a time.
//!
//! [`program`] says what programs are made of, [`compile`] translates them with [`encode`], [`frame`] is what they work on, [`aes`]
//! has the functions that fill scratchpads and make programs, [`code`] runs what was translated.
#![allow(unsafe_code)]

mod aes;
mod code;
mod compile;
mod encode;
mod frame;
mod lanes;
mod program;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Blake2b512, Digest};

use self::aes::State;
use self::code::Code;
use self::compile::{CODE_BYTES, Compiler, Places};
use self::frame::{Frame, LANES, RegisterFile};
pub use self::lanes::best as lanes;
use self::program::{LINE_MASK, Program};
use crate::region::Region;
use crate::{Batch, Dataset, HASH_BYTES, SCRATCHPAD_BYTES};

/// Programs of a hash.
const PROGRAMS: usize = 8;

/// Computes hashes from a dataset.
pub struct Machine {
    lanes: usize,
    seeds: [State; LANES],
    frame: Box<Frame>,
    scratchpads: Region,
    compiler: Compiler,
    code: Code,
    // Keeps what the code reads.
    _dataset: Arc<Dataset>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Machine {
    /// One that computes up to `lanes` hashes side by side. `None` where the processor can't, or where there is no memory for it.
    pub fn new(dataset: &Arc<Dataset>, lanes: usize) -> Option<Self> {
        assert!((1..=LANES).contains(&lanes), "so many can be computed side by side");
        if !is_supported() {
            return None;
        }
        let frame = Box::new(Frame::new());
        let scratchpads = Region::new(lanes * SCRATCHPAD_BYTES, dataset.largest())?;
        let code = Code::new(CODE_BYTES)?;
        let places = Places {
            code: code.address(),
            frame: (&raw const *frame).addr() as u64,
            dataset: dataset.bytes().as_ptr().addr() as u64,
            scratchpads: scratchpads.memory().addr().get() as u64,
        };
        let wide = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512f");
        Some(Self {
            lanes,
            seeds: [State([0; 64]); LANES],
            frame,
            scratchpads,
            compiler: Compiler::new(places, wide),
            code,
            _dataset: dataset.clone(),
        })
    }

    /// Hashes what `batch` gives, until it gives nothing.
    pub fn run(&mut self, batch: &mut impl Batch) {
        let mut busy = 0;
        while busy < self.lanes && self.begin(busy, batch) {
            busy += 1;
        }
        let mut more = busy == self.lanes;
        while busy > 0 {
            if !self.compute(busy, batch) {
                return;
            }
            // All at once: a batch that ends at some moment rarely ends between two of them, and the next round is full or none.
            let mut next = 0;
            while more && next < busy && self.take(next, batch) {
                next += 1;
            }
            more = more && next == busy;
            for lane in 0..busy {
                let hash = self.end(lane, lane < next);
                batch.hashed(hash);
            }
            busy = next;
        }
    }

    /// Takes an input; `false` if there is none.
    fn take(&mut self, lane: usize, batch: &mut impl Batch) -> bool {
        let Some(input) = batch.next() else { return false };
        self.seeds[lane] = State(Blake2b512::digest(input).into());
        true
    }

    fn begin(&mut self, lane: usize, batch: &mut impl Batch) -> bool {
        let taken = self.take(lane, batch);
        if taken {
            let scratchpad = self.scratchpad(lane);
            // SAFETY: the processor has AES; the scratchpad is one of ours.
            unsafe { aes::fill(&mut self.seeds[lane], scratchpad) };
        }
        taken
    }

    /// A lane's hash; its scratchpad is filled for its next one if there is one.
    fn end(&mut self, lane: usize, more: bool) -> [u8; HASH_BYTES] {
        let scratchpad = self.scratchpad(lane);
        // SAFETY: as above.
        let fingerprint = unsafe {
            match more {
                true => aes::fingerprint_and_fill(&mut self.seeds[lane], scratchpad),
                false => aes::fingerprint(scratchpad),
            }
        };
        let mut file = self.frame.lanes[lane].file.to_bytes();
        file[192..].copy_from_slice(&fingerprint.0);
        Blake2b::<U32>::digest(file).into()
    }

    fn scratchpad(&self, lane: usize) -> *mut u8 {
        self.scratchpads.memory().as_ptr().wrapping_add(lane * SCRATCHPAD_BYTES)
    }

    /// All programs of the first `busy` lanes; `false` if `batch` gives up meanwhile.
    fn compute(&mut self, busy: usize, batch: &impl Batch) -> bool {
        for lane in &mut self.frame.lanes[..busy] {
            lane.rounding = 0;
        }
        for number in 0..PROGRAMS {
            if batch.gives_up() {
                return false;
            }
            let mut programs = Vec::with_capacity(LANES);
            for lane in 0..busy {
                if number > 0 {
                    let file = self.frame.lanes[lane].file.to_bytes();
                    self.seeds[lane] = State(Blake2b512::digest(file).into());
                }
                // SAFETY: the processor has AES.
                let bytes = unsafe { aes::program(&mut self.seeds[lane]) };
                let program = Program::new(&bytes);
                self.load(lane, &program);
                programs.push(program);
            }
            let code = self.compiler.compile(&programs, &mut self.frame);
            // SAFETY: it was compiled for this frame, these scratchpads and this dataset, all of which are ours or held.
            unsafe { self.code.run(code) };
        }
        true
    }

    fn load(&mut self, lane: usize, program: &Program) {
        let lane = &mut self.frame.lanes[lane];
        lane.file = RegisterFile { r: [0; 8], f: [0; 8], e: [0; 8], a: program.a() };
        lane.e_mask = program.e_mask();
        lane.ma = program.ma();
        lane.mx = program.mx();
        lane.lines = [program.mx(), program.ma()].map(|address| address & LINE_MASK);
    }
}

fn is_supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("aes")
}
