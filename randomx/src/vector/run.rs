//! Carries items through the compiled programs, several vectors of them at a time: while one goes through a program, the cache lines
//! of the others come from memory, and the program's code stays in the processor's cache.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_load_si256, _mm256_loadu_si256, _mm256_permute2x128_si256,
    _mm256_store_si256, _mm256_stream_si256, _mm256_unpackhi_epi64, _mm256_unpacklo_epi64, _mm256_xor_si256,
    _mm512_load_si512, _mm512_loadu_si512, _mm512_shuffle_i64x2, _mm512_store_si512, _mm512_stream_si512,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::{CACHE_BYTES, ITEM_BYTES};

use super::code::Code;
use super::compile::Compiled;
use super::programs::{PROGRAMS, Programs};

/// Vectors that go through a program one after the other.
const VECTORS: usize = 4;
const LANES_MAX: usize = 8;

/// From the RandomX specification, 7.3.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const ADDENDS: [u64; 8] = [
    0,
    9_298_411_001_130_361_340,
    12_065_312_585_734_608_966,
    9_306_329_213_124_626_780,
    5_281_919_268_842_080_866,
    10_536_153_434_571_861_004,
    3_398_623_926_847_679_864,
    9_549_104_520_008_361_294,
];

type Function = unsafe extern "sysv64" fn(state: *mut u64, constants: *const u64);

/// Runs compiled programs.
#[derive(Debug)]
pub struct Runner {
    functions: [Function; PROGRAMS],
    constants: Vec<u64>,
    address: [usize; PROGRAMS],
    wide: bool,
    _code: Code,
}

/// The registers of one vector of items: register by register, in each the items side by side.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct State([u64; 8 * LANES_MAX]);

impl Runner {
    pub fn new(code: Code, compiled: Compiled, programs: &Programs) -> Self {
        // SAFETY: at each entry begins a function of this kind, which lives as long as the code.
        let function = |entry| unsafe { std::mem::transmute::<*const u8, Function>(code.at(entry)) };
        Self {
            functions: compiled.entries.map(function),
            constants: compiled.constants,
            address: programs.address,
            wide: compiled.wide,
            _code: code,
        }
    }

    fn lanes(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    /// How many items one call writes.
    pub fn items(&self) -> usize {
        VECTORS * self.lanes()
    }

    /// Writes [`Runner::items`] items from `first` on to `out`.
    ///
    /// # Safety
    /// `cache` must be an initialised cache, `out` valid for so many items, and the processor able to run what was compiled.
    pub unsafe fn write(&self, cache: *const u8, out: *mut u8, first: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            if self.wide {
                self.write_wide(cache, out, first);
            } else {
                self.write_narrow(cache, out, first);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn write_wide(&self, cache: *const u8, out: *mut u8, first: usize) {
        let mut states = [State([0; 8 * LANES_MAX]); VECTORS];
        let mut lines = [[cache; LANES_MAX]; VECTORS];
        self.begin(cache, first, &mut states, &mut lines);
        for program in 0..PROGRAMS {
            for (state, lines) in states.iter_mut().zip(&mut lines) {
                let registers = state.0.as_mut_ptr();
                // SAFETY: the function takes eight vectors and its constants; lines lie within the cache.
                unsafe {
                    self.functions[program](registers, self.constants.as_ptr());
                    let columns = transpose_8(lines.map(|line| _mm512_loadu_si512(line.cast())));
                    for (register, column) in columns.into_iter().enumerate() {
                        let place = registers.add(register * 8).cast();
                        _mm512_store_si512(place, _mm512_xor_si512(_mm512_load_si512(place), column));
                    }
                }
                self.next_lines(cache, program, state, lines);
            }
        }
        for (vector, state) in states.iter().enumerate() {
            // SAFETY: the state is aligned; items begin at multiples of 64 bytes in a dataset, elsewhere they are copied.
            unsafe {
                let registers = std::array::from_fn(|r| _mm512_load_si512(state.0.as_ptr().add(r * 8).cast()));
                for (item, row) in transpose_8(registers).into_iter().enumerate() {
                    let place: *mut __m512i = out.add((vector * 8 + item) * ITEM_BYTES).cast();
                    if place.is_aligned() { _mm512_stream_si512(place, row) } else { place.write_unaligned(row) }
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn write_narrow(&self, cache: *const u8, out: *mut u8, first: usize) {
        let mut states = [State([0; 8 * LANES_MAX]); VECTORS];
        let mut lines = [[cache; LANES_MAX]; VECTORS];
        self.begin(cache, first, &mut states, &mut lines);
        for program in 0..PROGRAMS {
            for (state, lines) in states.iter_mut().zip(&mut lines) {
                let registers = state.0.as_mut_ptr();
                // SAFETY: as for 512 bits; each line is two vectors.
                unsafe {
                    self.functions[program](registers, self.constants.as_ptr());
                    for half in 0..2 {
                        let rows = std::array::from_fn(|item| _mm256_loadu_si256(lines[item].add(half * 32).cast()));
                        for (column, values) in transpose_4(rows).into_iter().enumerate() {
                            let place = registers.add((half * 4 + column) * 4).cast();
                            _mm256_store_si256(place, _mm256_xor_si256(_mm256_load_si256(place), values));
                        }
                    }
                }
                self.next_lines(cache, program, state, lines);
            }
        }
        for (vector, state) in states.iter().enumerate() {
            for half in 0..2 {
                // SAFETY: as for 512 bits.
                unsafe {
                    let registers = std::array::from_fn(|r| {
                        _mm256_load_si256(state.0.as_ptr().add((half * 4 + r) * 4).cast::<__m256i>())
                    });
                    for (item, row) in transpose_4(registers).into_iter().enumerate() {
                        let place: *mut __m256i = out.add((vector * 4 + item) * ITEM_BYTES + half * 32).cast();
                        if place.is_aligned() { _mm256_stream_si256(place, row) } else { place.write_unaligned(row) }
                    }
                }
            }
        }
    }

    /// The registers before the first program, and the first lines.
    #[inline(always)]
    fn begin(&self, cache: *const u8, first: usize, states: &mut [State], lines: &mut [[*const u8; LANES_MAX]]) {
        let lanes = self.lanes();
        for (vector, (state, lines)) in states.iter_mut().zip(lines).enumerate() {
            for (lane, line) in lines.iter_mut().enumerate().take(lanes) {
                let item = (first + vector * lanes + lane) as u64;
                let seed = (item + 1).wrapping_mul(MULTIPLIER);
                for (register, addend) in ADDENDS.iter().enumerate() {
                    state.0[register * lanes + lane] = seed ^ addend;
                }
                *line = cache_line(cache, item);
            }
        }
    }

    /// Asks for the lines that the next program's result is mixed with.
    #[inline(always)]
    fn next_lines(&self, cache: *const u8, program: usize, state: &State, lines: &mut [*const u8; LANES_MAX]) {
        if program + 1 == PROGRAMS {
            return;
        }
        let lanes = self.lanes();
        let at = self.address[program] * lanes;
        for (next, value) in lines.iter_mut().zip(&state.0[at..at + lanes]) {
            *next = cache_line(cache, *value);
        }
    }
}

/// The cache line that `value` points to; it is on its way.
#[inline(always)]
fn cache_line(cache: *const u8, value: u64) -> *const u8 {
    const LINES: u64 = (CACHE_BYTES / ITEM_BYTES) as u64;
    let line = cache.wrapping_add((value % LINES) as usize * ITEM_BYTES);
    // SAFETY: a prefetch touches nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    line
}

/// Rows to columns, 8 by 8.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_8(rows: [__m512i; 8]) -> [__m512i; 8] {
    let pair = |k: usize| [_mm512_unpacklo_epi64(rows[k], rows[k + 1]), _mm512_unpackhi_epi64(rows[k], rows[k + 1])];
    let pairs = [pair(0), pair(2), pair(4), pair(6)];
    let quarters = |odd: usize| {
        let low = |a: usize, b: usize| _mm512_shuffle_i64x2::<0x44>(pairs[a][odd], pairs[b][odd]);
        let high = |a: usize, b: usize| _mm512_shuffle_i64x2::<0xEE>(pairs[a][odd], pairs[b][odd]);
        let [first, second, third, fourth] = [low(0, 1), low(2, 3), high(0, 1), high(2, 3)];
        [
            _mm512_shuffle_i64x2::<0x88>(first, second),
            _mm512_shuffle_i64x2::<0xDD>(first, second),
            _mm512_shuffle_i64x2::<0x88>(third, fourth),
            _mm512_shuffle_i64x2::<0xDD>(third, fourth),
        ]
    };
    let (even, odd) = (quarters(0), quarters(1));
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

/// Rows to columns, 4 by 4.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_4(rows: [__m256i; 4]) -> [__m256i; 4] {
    let [a, b] = [_mm256_unpacklo_epi64(rows[0], rows[1]), _mm256_unpackhi_epi64(rows[0], rows[1])];
    let [c, d] = [_mm256_unpacklo_epi64(rows[2], rows[3]), _mm256_unpackhi_epi64(rows[2], rows[3])];
    [
        _mm256_permute2x128_si256::<0x20>(a, c),
        _mm256_permute2x128_si256::<0x20>(b, d),
        _mm256_permute2x128_si256::<0x31>(a, c),
        _mm256_permute2x128_si256::<0x31>(b, d),
    ]
}
