//! Translates superscalar programs: one function each, `fn(state, constants)`. The state is eight vectors, register by register.

use super::encode::{ADD, AND, Base, Encoder, GREATER, MUL_HALVES, MUL_LOW, OR, SUB, XOR};
use super::programs::{Instruction, PROGRAMS, Programs};

/// Machine code of all programs.
#[derive(Debug)]
pub struct Compiled {
    pub bytes: Vec<u8>,
    /// Where each begins.
    pub entries: [usize; PROGRAMS],
    /// The second argument of each function.
    pub constants: Vec<u64>,
    /// 512 bits rather than 256.
    pub wide: bool,
}

/// The low half of each element; a constant.
const LOW_HALF: u8 = 15;
/// Zero; AVX2 only.
const ZERO: u8 = 14;
const FIRST_TEMPORARY: u8 = 8;

/// Translates all programs, for 512 bits or for 256.
pub fn compile(programs: &Programs, wide: bool) -> Compiled {
    let mut compiler = Compiler { encoder: Encoder { bytes: Vec::new(), wide }, constants: vec![0xFFFF_FFFF] };
    let mut entries = [0; PROGRAMS];
    for (entry, code) in entries.iter_mut().zip(&programs.code) {
        *entry = compiler.encoder.bytes.len();
        compiler.program(code);
    }
    Compiled { bytes: compiler.encoder.bytes, entries, constants: compiler.constants, wide }
}

struct Compiler {
    encoder: Encoder,
    constants: Vec<u64>,
}

impl Compiler {
    fn program(&mut self, code: &[Instruction]) {
        let stride = if self.encoder.wide { 64 } else { 32 };
        for register in 0..8 {
            self.encoder.load(register, Base::State, u32::from(register) * stride);
        }
        self.encoder.broadcast(LOW_HALF, Base::Constants, 0);
        if !self.encoder.wide {
            self.encoder.three(XOR, ZERO, ZERO, ZERO);
        }
        for instruction in code {
            self.instruction(*instruction);
        }
        for register in 0..8 {
            self.encoder.store(register, Base::State, u32::from(register) * stride);
        }
        self.encoder.leave();
    }

    fn instruction(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Sub { d, s } => self.encoder.three(SUB, d, d, s),
            Instruction::Xor { d, s } => self.encoder.three(XOR, d, d, s),
            Instruction::AddShifted { d, s, shift: 0 } => self.encoder.three(ADD, d, d, s),
            Instruction::AddShifted { d, s, shift } => {
                self.encoder.shift_left(FIRST_TEMPORARY, s, shift);
                self.encoder.three(ADD, d, d, FIRST_TEMPORARY);
            }
            Instruction::Mul { d, s } if self.encoder.wide => self.encoder.three(MUL_LOW, d, d, s),
            Instruction::Mul { d, s } => self.mul(d, s),
            Instruction::Rotate { d, right } => self.rotate(d, right),
            Instruction::AddConstant { d, value } => self.constant(ADD, d, value),
            Instruction::XorConstant { d, value } => self.constant(XOR, d, value),
            Instruction::MulHigh { d, s } => self.mul_high(d, s, false),
            Instruction::MulHighSigned { d, s } => self.mul_high(d, s, true),
            Instruction::MulConstant { d, value } if self.encoder.wide => self.constant(MUL_LOW, d, value),
            Instruction::MulConstant { d, value } => {
                let (place, s) = (self.place(value), FIRST_TEMPORARY + 2);
                self.encoder.broadcast(s, Base::Constants, place);
                self.mul(d, s);
            }
        }
    }

    fn place(&mut self, value: u64) -> u32 {
        self.constants.push(value);
        (self.constants.len() as u32 - 1) * 8
    }

    fn constant(&mut self, op: super::encode::Op, d: u8, value: u64) {
        let place = self.place(value);
        if self.encoder.wide {
            self.encoder.three_constant(op, d, d, Base::Constants, place);
        } else {
            self.encoder.broadcast(FIRST_TEMPORARY, Base::Constants, place);
            self.encoder.three(op, d, d, FIRST_TEMPORARY);
        }
    }

    fn rotate(&mut self, d: u8, right: u8) {
        if self.encoder.wide {
            self.encoder.rotate_right(d, d, right);
        } else if right > 0 {
            self.encoder.shift_right(FIRST_TEMPORARY, d, right);
            self.encoder.shift_left(d, d, 64 - right);
            self.encoder.three(OR, d, d, FIRST_TEMPORARY);
        }
    }

    /// The low half of a product from products of halves.
    fn mul(&mut self, d: u8, s: u8) {
        let [high_d, high_s] = [8, 9];
        let e = &mut self.encoder;
        e.shift_right(high_d, d, 32);
        e.shift_right(high_s, s, 32);
        e.three(MUL_HALVES, high_d, high_d, s);
        e.three(MUL_HALVES, high_s, high_s, d);
        e.three(ADD, high_d, high_d, high_s);
        e.three(MUL_HALVES, d, d, s);
        e.shift_left(high_d, high_d, 32);
        e.three(ADD, d, d, high_d);
    }

    /// The high half of a product from products of halves; a signed one is smaller by what negative factors stand for.
    fn mul_high(&mut self, d: u8, s: u8, signed: bool) {
        let [high_d, high_s, carry, middle, low, high] = [8, 9, 10, 11, 12, 13];
        let [d_negative, s_negative] = [1, 2];
        let e = &mut self.encoder;
        e.shift_right(high_d, d, 32);
        e.shift_right(high_s, s, 32);
        e.three(MUL_HALVES, carry, d, s);
        e.three(MUL_HALVES, middle, high_d, s);
        e.three(MUL_HALVES, low, d, high_s);
        e.three(MUL_HALVES, high, high_d, high_s);
        e.shift_right(carry, carry, 32);
        e.three(ADD, carry, carry, middle);
        e.three(AND, middle, carry, LOW_HALF);
        e.three(ADD, middle, middle, low);
        e.shift_right(carry, carry, 32);
        e.shift_right(middle, middle, 32);
        e.three(ADD, high, high, carry);
        match (signed, e.wide) {
            (false, _) => e.three(ADD, d, high, middle),
            (true, true) => {
                e.signs(d_negative, d);
                e.signs(s_negative, s);
                e.three(ADD, high, high, middle);
                e.three_masked(SUB, high, high, s, d_negative);
                e.three_masked(SUB, high, high, d, s_negative);
                e.copy(d, high);
            }
            (true, false) => {
                e.three(GREATER, high_d, ZERO, d);
                e.three(GREATER, high_s, ZERO, s);
                e.three(AND, high_d, high_d, s);
                e.three(AND, high_s, high_s, d);
                e.three(ADD, high, high, middle);
                e.three(SUB, high, high, high_d);
                e.three(SUB, d, high, high_s);
            }
        }
    }
}
