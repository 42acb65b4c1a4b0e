//! The superscalar programs of a key, read from the library's cache. They are not part of its public interface: the layout is that
//! of RandomX v1.2 (`dataset.hpp`, `superscalar_program.hpp`), everything read is checked, and so are the items that come out.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::Cache;

/// Programs an item goes through.
pub const PROGRAMS: usize = 8;
const INSTRUCTIONS_MAX: usize = 512;

#[repr(C)]
struct RawInstruction {
    opcode: u8,
    dst: u8,
    src: u8,
    modifier: u8,
    immediate: u32,
}

#[repr(C)]
struct RawProgram {
    instructions: [RawInstruction; INSTRUCTIONS_MAX],
    size: u32,
    address_register: i32,
    ipc: f64,
    statistics: [i32; 22],
}

#[repr(C)]
struct RawLayout {
    memory: *const u8,
    functions: [*const c_void; 4],
    programs: [RawProgram; PROGRAMS],
    reciprocals: [*const u64; 3],
}

const _: () = assert!(size_of::<RawInstruction>() == 8 && size_of::<RawProgram>() == 4200);

/// What a superscalar program does to registers `d` and `s` (RandomX specification, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    Sub { d: u8, s: u8 },
    Xor { d: u8, s: u8 },
    AddShifted { d: u8, s: u8, shift: u8 },
    Mul { d: u8, s: u8 },
    Rotate { d: u8, right: u8 },
    AddConstant { d: u8, value: u64 },
    XorConstant { d: u8, value: u64 },
    MulHigh { d: u8, s: u8 },
    MulHighSigned { d: u8, s: u8 },
    MulConstant { d: u8, value: u64 },
}

/// The programs of a key.
#[derive(Debug)]
pub struct Programs {
    pub code: [Vec<Instruction>; PROGRAMS],
    /// The register that says which cache line comes next, after each program.
    pub address: [usize; PROGRAMS],
}

impl Programs {
    /// `None` if what is there can't be programs.
    pub fn read(cache: &Cache) -> Option<Self> {
        // SAFETY: the library's struct is at least that large, of standard layout and initialised; all fields are integers and
        // pointers, and nothing is believed before it is checked.
        let raw = unsafe { cache.raw().cast::<RawLayout>().as_ref() };
        let [begin, end, _] = raw.reciprocals;
        let count = raw.programs.iter().map(reciprocals_in).sum::<Option<usize>>()?;
        let bytes = (end.addr()).checked_sub(begin.addr())?;
        if bytes != count * size_of::<u64>() || begin.is_null() || !begin.is_aligned() {
            return None;
        }
        // SAFETY: a vector of the library's with as many numbers as its programs use.
        let reciprocals = unsafe { std::slice::from_raw_parts(begin, count) };
        let mut code = [const { Vec::new() }; PROGRAMS];
        let mut address = [0; PROGRAMS];
        for (index, program) in raw.programs.iter().enumerate() {
            code[index] = decode(program, reciprocals)?;
            address[index] = usize::try_from(program.address_register).ok().filter(|register| *register < 8)?;
        }
        Some(Self { code, address })
    }
}

const RECIPROCAL: u8 = 13;

fn instructions(program: &RawProgram) -> Option<&[RawInstruction]> {
    let size = program.size as usize;
    program.instructions.get(..size).filter(|_| size > 0)
}

fn reciprocals_in(program: &RawProgram) -> Option<usize> {
    Some(instructions(program)?.iter().filter(|instruction| instruction.opcode == RECIPROCAL).count())
}

fn decode(program: &RawProgram, reciprocals: &[u64]) -> Option<Vec<Instruction>> {
    instructions(program)?.iter().map(|raw| translate(raw, reciprocals)).collect()
}

fn translate(raw: &RawInstruction, reciprocals: &[u64]) -> Option<Instruction> {
    let (d, s) = (raw.dst, raw.src);
    if d >= 8 || s >= 8 {
        return None;
    }
    let value = i64::from(raw.immediate.cast_signed()).cast_unsigned();
    Some(match raw.opcode {
        0 => Instruction::Sub { d, s },
        1 => Instruction::Xor { d, s },
        2 => Instruction::AddShifted { d, s, shift: (raw.modifier >> 2) & 3 },
        3 => Instruction::Mul { d, s },
        4 => Instruction::Rotate { d, right: (raw.immediate & 63) as u8 },
        5 | 7 | 9 => Instruction::AddConstant { d, value },
        6 | 8 | 10 => Instruction::XorConstant { d, value },
        11 => Instruction::MulHigh { d, s },
        12 => Instruction::MulHighSigned { d, s },
        RECIPROCAL => Instruction::MulConstant { d, value: *reciprocals.get(raw.immediate as usize)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_the_linked_version_are_read() {
        let programs = Programs::read(&Cache::new(b"test key 000").unwrap()).expect("the layout is as assumed");
        for code in &programs.code {
            assert!((300..=INSTRUCTIONS_MAX).contains(&code.len()), "{}", code.len());
        }
        let total: usize = programs.code.iter().map(Vec::len).sum();
        let high = |i: &&Instruction| matches!(i, Instruction::MulHigh { .. } | Instruction::MulHighSigned { .. });
        let multiplied = programs.code.iter().flatten().filter(high).count();
        assert!(multiplied > 0 && multiplied < total);
    }
}
