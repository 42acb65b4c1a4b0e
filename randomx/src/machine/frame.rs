//! What compiled programs work on, besides scratchpads and dataset.

use super::program::{E_KEPT, INSTRUCTIONS, SCALE};

/// How many hashes are computed side by side at most.
pub const LANES: usize = 4;

/// Compiled code has the address of a frame, plus [`Frame::POINTED`], in `rbp`.
#[repr(C, align(64))]
pub struct Frame {
    /// Values of MXCSR by rounding mode.
    pub rounding: [u32; 4],
    /// Its value outside of compiled code.
    pub outside: u32,
    _unused: [u32; 3],
    pub e_kept: [u64; 2],
    pub scale: [u64; 2],
    pub lanes: [Lane; LANES],
    /// Factors of multiplications.
    pub factors: [u64; LANES * INSTRUCTIONS],
}

/// The state of one hash.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Lane {
    /// `spAddr0` and `spAddr1`: the lines of the scratchpad that the next turn begins with.
    pub lines: [u32; 2],
    pub ma: u32,
    pub mx: u32,
    /// Where the code of the next turn begins, and where that for the first rounding mode does.
    pub next: u64,
    pub first: u64,
    pub e_mask: [u64; 2],
    pub file: RegisterFile,
    /// The rounding mode, times four.
    pub rounding: u32,
}

/// Registers, in the order in which they are hashed.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterFile {
    pub r: [u64; 8],
    pub f: [u64; 8],
    pub e: [u64; 8],
    pub a: [u64; 8],
}

impl Frame {
    /// So that what is used most is reached with short offsets.
    pub const POINTED: usize = 128;

    pub fn new() -> Self {
        let file = RegisterFile { r: [0; 8], f: [0; 8], e: [0; 8], a: [0; 8] };
        let lane = Lane { lines: [0; 2], ma: 0, mx: 0, next: 0, first: 0, e_mask: [0; 2], file, rounding: 0 };
        Self {
            // Exceptions masked, denormals taken for zero and flushed to zero.
            rounding: [0, 1, 2, 3].map(|mode| 0x9FC0 | mode << 13),
            outside: 0,
            _unused: [0; 3],
            e_kept: [E_KEPT; 2],
            scale: [SCALE; 2],
            lanes: [lane; LANES],
            factors: [0; LANES * INSTRUCTIONS],
        }
    }
}

impl RegisterFile {
    pub fn to_bytes(self) -> [u8; 256] {
        let mut bytes = [0; 256];
        let words = [self.r, self.f, self.e, self.a];
        for (eight, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words.as_flattened()) {
            *eight = word.to_le_bytes();
        }
        bytes
    }
}
