//! The three functions on single AES rounds: two generators and a fingerprint (specification, 3.2 to 3.4). Each has a state of four
//! columns of 16 bytes; two of them are encrypted, two decrypted.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::program::PROGRAM_BYTES;
use crate::SCRATCHPAD_BYTES;

/// The state of a generator, or a fingerprint.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct State(pub [u8; 64]);

/// How far ahead of the work lines are asked for.
const AHEAD: usize = 1024;

const GENERATOR_1R: [u128; 4] = [
    0x53a5ac6d096671622b55b5db1749f4b4,
    0x07af7c6d0d716a8478d325174edca10d,
    0xf162123fc67e949f4f79c0f445e3203e,
    0x3581ef6a7c31bab1884c311654911649,
];

const GENERATOR_4R: [u128; 8] = [
    0xddaa2164db3d83d12b6d542f3fd2e599,
    0x50340eb2553f91b6539df706e5cddfa5,
    0x04d93e5caf7b5e519f67a40abf021c17,
    0x63376285085d8fe7853767cd91d2ded8,
    0x736f82b5a6a7d6e36d8b513db4ff9e22,
    0xf36b56c7d9b3109c4e4d02e9d2b772b2,
    0xe7c973f28ba365f70a66a92ba7ef3bf6,
    0x09d67c7ade395891fdd1060c2d76b0c0,
];

const FINGERPRINT: [u128; 4] = [
    0x0d2cb592de56a89f47db82ccad3a98d7,
    0x6e998d3398b7c7155a129ef55780e7ac,
    0x1700776ad0c762ae6b507950e47ca0e8,
    0x0c240a638d82ad070500a1794849997e,
];

const FINGERPRINT_LAST: [u128; 2] = [0x8983faf69f94248bbf56dc9001028906, 0xd163b2613ce0f451c64310ee9bf918ed];

/// Four columns.
type Columns = [__m128i; 4];

/// Of a number that is written with its first byte first.
#[inline(always)]
fn column(number: u128) -> __m128i {
    // SAFETY: both are 16 bytes without invalid values.
    unsafe { std::mem::transmute(number.swap_bytes()) }
}

/// # Safety
/// `from` must be valid for 64 bytes.
#[inline(always)]
unsafe fn load(from: *const u8) -> Columns {
    // SAFETY: as the caller promises.
    std::array::from_fn(|index| unsafe { _mm_loadu_si128(from.add(index * 16).cast()) })
}

/// # Safety
/// `to` must be valid for 64 bytes.
#[inline(always)]
unsafe fn store(to: *mut u8, columns: Columns) {
    for (index, column) in columns.into_iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { _mm_storeu_si128(to.add(index * 16).cast(), column) };
    }
}

/// A round of the first generator: columns 0 and 2 are decrypted.
#[inline]
#[target_feature(enable = "aes")]
fn generate(state: Columns, keys: Columns) -> Columns {
    [
        _mm_aesdec_si128(state[0], keys[0]),
        _mm_aesenc_si128(state[1], keys[1]),
        _mm_aesdec_si128(state[2], keys[2]),
        _mm_aesenc_si128(state[3], keys[3]),
    ]
}

/// A round of the fingerprint: columns 1 and 3 are decrypted.
#[inline]
#[target_feature(enable = "aes")]
fn absorb(state: Columns, keys: Columns) -> Columns {
    [
        _mm_aesenc_si128(state[0], keys[0]),
        _mm_aesdec_si128(state[1], keys[1]),
        _mm_aesenc_si128(state[2], keys[2]),
        _mm_aesdec_si128(state[3], keys[3]),
    ]
}

#[inline]
#[target_feature(enable = "aes")]
fn end_fingerprint(state: Columns) -> Columns {
    FINGERPRINT_LAST.into_iter().fold(state, |state, key| absorb(state, [column(key); 4]))
}

/// Fills a scratchpad; `seed` becomes the generator's last state.
///
/// # Safety
/// The processor must have AES, and `scratchpad` be valid for a scratchpad's bytes.
#[target_feature(enable = "aes")]
pub unsafe fn fill(seed: &mut State, scratchpad: *mut u8) {
    let keys = GENERATOR_1R.map(column);
    // SAFETY: the lines lie within the scratchpad.
    unsafe {
        let mut state = load(seed.0.as_ptr());
        for at in (0..SCRATCHPAD_BYTES).step_by(64) {
            state = generate(state, keys);
            store(scratchpad.add(at), state);
        }
        store(seed.0.as_mut_ptr(), state);
    }
}

/// The fingerprint of a scratchpad.
///
/// # Safety
/// As for [`fill`].
#[target_feature(enable = "aes")]
pub unsafe fn fingerprint(scratchpad: *const u8) -> State {
    let mut fingerprint = State([0; 64]);
    // SAFETY: the lines lie within the scratchpad.
    unsafe {
        let mut state = FINGERPRINT.map(column);
        for at in (0..SCRATCHPAD_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(scratchpad.wrapping_add(at + AHEAD).cast());
            state = absorb(state, load(scratchpad.add(at)));
        }
        store(fingerprint.0.as_mut_ptr(), end_fingerprint(state));
    }
    fingerprint
}

/// Both in one go: the fingerprint of what is in the scratchpad, which is then filled anew.
///
/// # Safety
/// As for [`fill`].
#[target_feature(enable = "aes")]
pub unsafe fn fingerprint_and_fill(seed: &mut State, scratchpad: *mut u8) -> State {
    let keys = GENERATOR_1R.map(column);
    let mut fingerprint = State([0; 64]);
    // SAFETY: the lines lie within the scratchpad.
    unsafe {
        let mut absorbed = FINGERPRINT.map(column);
        let mut generated = load(seed.0.as_ptr());
        for at in (0..SCRATCHPAD_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(scratchpad.wrapping_add(at + AHEAD).cast_const().cast());
            absorbed = absorb(absorbed, load(scratchpad.add(at)));
            generated = generate(generated, keys);
            store(scratchpad.add(at), generated);
        }
        store(seed.0.as_mut_ptr(), generated);
        store(fingerprint.0.as_mut_ptr(), end_fingerprint(absorbed));
    }
    fingerprint
}

/// What a program is made from, by the second generator; `seed` becomes its last state.
///
/// # Safety
/// The processor must have AES.
#[target_feature(enable = "aes")]
pub unsafe fn program(seed: &mut State) -> [u8; PROGRAM_BYTES] {
    let keys = GENERATOR_4R.map(column);
    let mut made = [0; PROGRAM_BYTES];
    // SAFETY: the state and each part of the program are 64 bytes.
    unsafe {
        let mut state = load(seed.0.as_ptr());
        for part in made.chunks_exact_mut(64) {
            for round in 0..4 {
                let [low, high] = [keys[round], keys[round + 4]];
                state = generate(state, [low, low, high, high]);
            }
            store(part.as_mut_ptr(), state);
        }
        store(seed.0.as_mut_ptr(), state);
    }
    made
}
