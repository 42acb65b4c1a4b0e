//! Translates programs to a function that runs them, side by side: one turn of the first, one turn of the second, and so on, so that
//! what one waits for arrives while the others compute.
//!
//! `r0` to `r7` lie in `r8` to `r15`, `a` in `xmm0` to `xmm3`, `e` in `xmm4` to `xmm7`, `f` in `xmm8` to `xmm11`. `rsi` points to the
//! scratchpad, `rdi` to the dataset, `rbp` to the [`Frame`], `rbx` counts turns; `rax`, `rcx`, `rdx` and `xmm12` are free.

use std::mem::offset_of;

use super::encode::*;
use super::frame::{Frame, LANES, Lane, RegisterFile};
use super::program::{INSTRUCTIONS, ITEM_MASK, Instruction, Kind, L3_MASK, LINE_MASK, Program};
use crate::SCRATCHPAD_BYTES;

/// How often a program is repeated.
const TURNS: u32 = 2048;

const E: u8 = 4;
const F: u8 = 8;
const TEMPORARY: u8 = 12;
const E_KEPT: u8 = 13;
const E_MASK: u8 = 14;
const SCALE: u8 = 15;

/// No code is longer.
pub const CODE_BYTES: usize = LANES * 4 * INSTRUCTIONS * 64;

/// Where what the code refers to lies.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub frame: u64,
    pub dataset: u64,
    pub code: u64,
    /// The first; the others follow.
    pub scratchpads: u64,
}

/// In which general registers `r0` to `r7` are: swaps only change that.
type Map = [u8; 8];
const PLAIN: Map = [8, 9, 10, 11, 12, 13, 14, 15];

/// A jump to before swaps, which must be undone on the way.
struct Detour {
    jump: usize,
    from: Map,
    to: Map,
    target: usize,
}

/// Translates.
pub struct Compiler {
    encoder: Encoder,
    places: Places,
    /// Whether the processor has AVX-512: its instructions say themselves how to round. To change the mode for all others stops the
    /// processor for a while, and each lane has another.
    wide: bool,
    map: Map,
    /// Where each instruction of the program begins, and the map there.
    begins: [(usize, Map); INSTRUCTIONS],
    /// After which instruction a branch on a register goes on: the next to the last that changed it.
    changed: [usize; 8],
    detours: Vec<Detour>,
    factors: usize,
    /// Of the block that is being written: where it begins, which places say how long it is, and which say how to round.
    begin: usize,
    strides: Vec<usize>,
    rounded: Vec<usize>,
    /// Where the programs' parts of the dataset begin.
    offsets: [i32; LANES],
}

impl Compiler {
    pub fn new(places: Places, wide: bool) -> Self {
        let mut encoder = Encoder::default();
        encoder.bytes.reserve(CODE_BYTES / 4);
        let begins = [(0, PLAIN); INSTRUCTIONS];
        Self {
            encoder,
            places,
            wide,
            map: PLAIN,
            begins,
            changed: [0; 8],
            detours: Vec::new(),
            factors: 0,
            begin: 0,
            strides: Vec::new(),
            rounded: Vec::new(),
            offsets: [0; LANES],
        }
    }

    /// Whether it uses AVX-512.
    #[cfg(test)]
    pub fn wide(&self) -> bool {
        self.wide
    }

    /// The same with or without AVX-512.
    #[cfg(test)]
    pub fn with(&self, wide: bool) -> Self {
        Self::new(self.places, wide)
    }

    /// The code of a function that runs `programs`, one in each lane.
    pub fn compile(&mut self, programs: &[Program], frame: &mut Frame) -> &[u8] {
        self.encoder.bytes.clear();
        self.factors = 0;
        self.enter();
        if programs.len() == 1 {
            self.load_rounding(0);
            self.load_constants(0);
            self.zero_registers();
            self.load_lines(0);
        }
        if self.wide {
            self.encoder.jump_memory(of_lane(0, offset_of!(Lane, next)));
        }
        self.encoder.align(64);
        let head = self.encoder.at();
        for lane in 0..programs.len() {
            if self.wide {
                self.block(lane, programs, frame);
            } else {
                self.turn(lane, programs.len(), &programs[lane], frame);
            }
        }
        if !self.wide {
            // sub ebx, 1
            self.encoder.raw([0x83, 0xEB, 1]);
            self.encoder.jump_if_not_zero(head);
            self.finish(programs.len());
            self.detours();
        }
        debug_assert!(self.encoder.at() <= CODE_BYTES);
        &self.encoder.bytes
    }

    /// A turn that goes on with the next lane's: four times, for each rounding mode once, if the program changes it, else once.
    fn block(&mut self, lane: usize, programs: &[Program], frame: &mut Frame) {
        let begin = self.encoder.at();
        self.begin = begin;
        self.turn(lane, programs.len(), &programs[lane], frame);
        if lane + 1 < programs.len() {
            self.encoder.jump_memory(of_lane(lane + 1, offset_of!(Lane, next)));
            self.detours();
        } else {
            // sub ebx, 1
            self.encoder.raw([0x83, 0xEB, 1]);
            let done = self.encoder.jump_ahead_if_zero();
            self.encoder.jump_memory(of_lane(0, offset_of!(Lane, next)));
            self.detours();
            self.encoder.land(done);
            self.finish(programs.len());
        }
        self.encoder.align(64);
        let bytes = &mut self.encoder.bytes;
        let end = bytes.len();
        let (stride, lane) = (end - begin, &mut frame.lanes[lane]);
        for place in &self.strides {
            // The modes in `rax` are four times too large.
            bytes[*place..place + 4].copy_from_slice(&(stride as u32 / 4).to_le_bytes());
        }
        let mode = lane.rounding as usize / 4;
        let modes = if self.strides.is_empty() { mode..mode + 1 } else { 0..4 };
        for (copy, mode) in modes.clone().enumerate() {
            if copy > 0 {
                bytes.extend_from_within(begin..end);
            }
            for place in &self.rounded {
                let byte = &mut bytes[place + copy * stride];
                *byte = *byte & !0x60 | (mode as u8) << 5;
            }
        }
        lane.first = self.places.code + begin as u64;
        lane.next = lane.first + ((mode - modes.start) * stride) as u64;
        self.strides.clear();
        self.rounded.clear();
    }

    /// After the last turn.
    fn finish(&mut self, lanes: usize) {
        if lanes == 1 {
            self.store_integers(0);
        }
        self.store_floats(lanes - 1);
        self.leave();
    }

    fn enter(&mut self) {
        let e = &mut self.encoder;
        // push rbx, rbp, r12 to r15
        e.raw([0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]);
        e.mov_constant(RBP, self.places.frame + Frame::POINTED as u64);
        e.mov_constant(RDI, self.places.dataset);
        e.mov_constant(RSI, self.places.scratchpads);
        e.store_rounding(shared(offset_of!(Frame, outside)));
        e.load_rounding(shared(offset_of!(Frame, rounding)));
        e.load_vector(E_KEPT, shared(offset_of!(Frame, e_kept)));
        e.load_vector(SCALE, shared(offset_of!(Frame, scale)));
        e.mov_half_constant(RBX, TURNS);
    }

    fn leave(&mut self) {
        let e = &mut self.encoder;
        e.load_rounding(shared(offset_of!(Frame, outside)));
        // vzeroupper
        e.raw([0xC5, 0xF8, 0x77]);
        // pop r15 to r12, rbp, rbx; ret
        e.raw([0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3]);
    }

    /// Where instructions don't say it themselves.
    fn load_rounding(&mut self, lane: usize) {
        if self.wide {
            return;
        }
        self.encoder.load_half(RAX, of_lane(lane, offset_of!(Lane, rounding)));
        self.encoder.load_rounding(rounding());
    }

    fn load_constants(&mut self, lane: usize) {
        for register in 0..4 {
            self.encoder.load_vector(register, of_file(lane, offset_of!(RegisterFile, a), register, 16));
        }
        self.encoder.load_vector(E_MASK, of_lane(lane, offset_of!(Lane, e_mask)));
    }

    fn zero_registers(&mut self) {
        for register in PLAIN {
            self.encoder.xor_half(register, register);
        }
    }

    fn load_lines(&mut self, lane: usize) {
        self.encoder.load_half(RAX, of_lane(lane, offset_of!(Lane, lines)));
        self.encoder.load_half(RDX, of_lane(lane, offset_of!(Lane, lines) + 4));
    }

    /// One turn of one program: steps 1 to 12 of the specification's 4.6.2, the first for the turn after.
    fn turn(&mut self, lane: usize, lanes: usize, program: &Program, frame: &mut Frame) {
        let alone = lanes == 1;
        self.map = PLAIN;
        if !alone {
            self.switch(lane);
        }
        self.mix_in_lines();
        self.program(lane, program, frame);
        self.mix_in_item(lane, lanes, program);
        self.write_lines(lane);
        if alone {
            self.restore_map();
        } else {
            self.store_integers(lane);
            if lane + 1 < lanes {
                self.store_floats_after_last(lane);
            }
        }
    }

    fn switch(&mut self, lane: usize) {
        if lane == 0 {
            self.encoder.mov_constant(RSI, self.places.scratchpads);
        } else {
            self.encoder.alu_constant(AluConstant::Add, RSI, SCRATCHPAD_BYTES as u32);
        }
        self.load_rounding(lane);
        self.load_lines(lane);
        for register in 0..8 {
            let place = of_file(lane, offset_of!(RegisterFile, r), register, 8);
            self.encoder.alu_memory(Alu::Mov, PLAIN[usize::from(register)], place);
        }
        self.load_constants(lane);
    }

    /// Steps 2 and 3. `rax` and `rdx` say where.
    fn mix_in_lines(&mut self) {
        for (register, place) in PLAIN.into_iter().zip((0..).step_by(8)) {
            self.encoder.alu_memory(Alu::Xor, register, Memory::IndexedAt(RSI, RAX, place));
        }
        for register in 0..4 {
            self.encoder.convert(F + register, Memory::IndexedAt(RSI, RDX, i32::from(register) * 8));
        }
        for register in 0..4 {
            self.encoder.convert(E + register, Memory::IndexedAt(RSI, RDX, i32::from(register) * 8 + 32));
            self.mask_e(E + register);
        }
    }

    fn mask_e(&mut self, register: u8) {
        if self.wide {
            self.encoder.and_or(register, E_KEPT, E_MASK);
        } else {
            self.encoder.float(Float::And, register, register, E_KEPT);
            self.encoder.float(Float::Or, register, register, E_MASK);
        }
    }

    /// Step 4.
    fn program(&mut self, lane: usize, program: &Program, frame: &mut Frame) {
        self.changed = [0; 8];
        for index in 0..INSTRUCTIONS {
            self.begins[index] = (self.encoder.at(), self.map);
            self.instruction(index, lane, program.instruction(index), frame);
        }
    }

    /// Steps 5 to 8, and the first for the turn after: `rax` and `rdx` say which lines are next.
    ///
    /// The items of all lanes are asked for together, at the end of the last one's turn: where the processor has to look up the
    /// address first, it stops until it knows it, and so it stops once instead of once for each lane.
    fn mix_in_item(&mut self, lane: usize, lanes: usize, program: &Program) {
        let [first, second, third, fourth] =
            program.address_registers().map(|register| self.map[usize::from(register)]);
        let (ma, mx) = (of_lane(lane, offset_of!(Lane, ma)), of_lane(lane, offset_of!(Lane, mx)));
        let offset = program.dataset_offset().cast_signed();
        let e = &mut self.encoder;
        e.mov_half(RAX, third);
        e.xor_half(RAX, fourth);
        e.xor_half_memory(RAX, mx);
        e.and_half(RAX, ITEM_MASK);
        e.load_half(RCX, ma);
        e.store_half(RAX, ma);
        e.store_half(RCX, mx);
        self.offsets[lane] = offset;
        if lane + 1 == lanes {
            e.prefetch(false, Memory::IndexedAt(RDI, RAX, offset));
            for other in 0..lane {
                e.load_half(RAX, of_lane(other, offset_of!(Lane, ma)));
                e.prefetch(false, Memory::IndexedAt(RDI, RAX, self.offsets[other]));
            }
        }
        e.address(RCX, RDI, RCX, offset);
        let item = |register: usize| Memory::Base(RCX, register as i32 * 8);
        let addressing = [first, second];
        let place = |register: u8, map: &Map| map.iter().position(|at| *at == register).unwrap_or_default();
        for register in addressing {
            e.alu_memory(Alu::Xor, register, item(place(register, &self.map)));
        }
        e.alu(Alu::Mov, RAX, first);
        e.alu(Alu::Xor, RAX, second);
        e.alu(Alu::Mov, RDX, RAX);
        e.and_half(RAX, LINE_MASK);
        e.shift_right(RDX, 32);
        e.and_half(RDX, LINE_MASK);
        e.prefetch(true, Memory::Indexed(RSI, RAX));
        e.prefetch(true, Memory::Indexed(RSI, RDX));
        for register in self.map.into_iter().filter(|register| !addressing.contains(register)) {
            e.alu_memory(Alu::Xor, register, item(place(register, &self.map)));
        }
    }

    /// Steps 9 to 12.
    fn write_lines(&mut self, lane: usize) {
        let lines = [0, 4].map(|offset| of_lane(lane, offset_of!(Lane, lines) + offset));
        let e = &mut self.encoder;
        e.load_half(RCX, lines[1]);
        for register in 0..8 {
            e.store(self.map[register], Memory::IndexedAt(RSI, RCX, register as i32 * 8));
        }
        e.load_half(RCX, lines[0]);
        for register in 0..4 {
            e.float(Float::Xor, F + register, F + register, E + register);
        }
        for register in 0..4 {
            e.store_vector(F + register, Memory::IndexedAt(RSI, RCX, i32::from(register) * 16));
        }
        e.store_half(RAX, lines[0]);
        e.store_half(RDX, lines[1]);
    }

    /// Each register to where it belongs.
    fn restore_map(&mut self) {
        let map = self.map;
        self.permute(map, PLAIN);
        self.map = PLAIN;
    }

    fn permute(&mut self, mut from: Map, to: Map) {
        for register in 0..8 {
            if from[register] != to[register] {
                self.encoder.exchange(from[register], to[register]);
                let other = from.iter().position(|place| *place == to[register]).unwrap_or(register);
                from.swap(register, other);
            }
        }
    }

    fn store_integers(&mut self, lane: usize) {
        for register in 0..8 {
            let place = of_file(lane, offset_of!(RegisterFile, r), register, 8);
            self.encoder.store(self.map[usize::from(register)], place);
        }
    }

    fn store_floats(&mut self, lane: usize) {
        for register in 0..4 {
            self.encoder.store_vector(F + register, of_file(lane, offset_of!(RegisterFile, f), register, 16));
            self.encoder.store_vector(E + register, of_file(lane, offset_of!(RegisterFile, e), register, 16));
        }
    }

    /// The next lane takes the registers; what is in them counts in the end.
    fn store_floats_after_last(&mut self, lane: usize) {
        // cmp ebx, 1; jne over what follows
        self.encoder.raw([0x83, 0xFB, 1, 0x75, 0]);
        let from = self.encoder.at();
        self.store_floats(lane);
        let over = self.encoder.at() - from;
        self.encoder.bytes[from - 1] = u8::try_from(over).unwrap_or_default();
    }

    fn detours(&mut self) {
        for Detour { jump, from, to, target } in std::mem::take(&mut self.detours) {
            self.encoder.land(jump);
            self.permute(from, to);
            self.encoder.jump(target);
        }
    }

    fn instruction(&mut self, index: usize, lane: usize, instruction: Instruction, frame: &mut Frame) {
        let (dst, src) = (usize::from(instruction.dst()), usize::from(instruction.src()));
        let (d, s) = (self.map[dst], self.map[src]);
        let imm = instruction.imm();
        let f = F + (instruction.dst() & 3);
        let e = E + (instruction.dst() & 3);
        let a = instruction.src() & 3;
        match instruction.kind() {
            Kind::AddShifted => {
                self.encoder.add_shifted(d, s, instruction.shift(), if dst == 5 { imm } else { 0 });
            }
            Kind::AddMemory => self.alu_memory(Alu::Add, instruction),
            Kind::Sub if dst == src => self.encoder.alu_constant(AluConstant::Sub, d, imm),
            Kind::Sub => self.encoder.alu(Alu::Sub, d, s),
            Kind::SubMemory => self.alu_memory(Alu::Sub, instruction),
            Kind::Mul if dst == src => self.encoder.mul_constant(d, imm),
            Kind::Mul => self.encoder.mul(d, s),
            Kind::MulMemory => {
                let place = self.operand(RAX, instruction);
                self.encoder.mul_memory(d, place);
            }
            Kind::MulHigh => {
                self.encoder.alu(Alu::Mov, RDX, d);
                self.encoder.mul_high(d, s);
            }
            Kind::MulHighMemory => {
                let place = self.operand(RAX, instruction);
                self.encoder.alu(Alu::Mov, RDX, d);
                self.encoder.mul_high_memory(d, place);
            }
            Kind::SignedMulHigh => {
                self.encoder.alu(Alu::Mov, RAX, d);
                self.encoder.signed_mul(s);
                self.encoder.alu(Alu::Mov, d, RDX);
            }
            Kind::SignedMulHighMemory => {
                let place = self.operand(RCX, instruction);
                self.encoder.alu(Alu::Mov, RAX, d);
                self.encoder.signed_mul_memory(place);
                self.encoder.alu(Alu::Mov, d, RDX);
            }
            Kind::MulReciprocal => {
                let Some(factor) = instruction.reciprocal() else { return };
                frame.factors[self.factors] = factor;
                let place = shared(offset_of!(Frame, factors) + 8 * self.factors);
                self.factors += 1;
                self.encoder.mul_memory(d, place);
            }
            Kind::Negate => self.encoder.negate(d),
            Kind::Xor if dst == src => self.encoder.alu_constant(AluConstant::Xor, d, imm),
            Kind::Xor => self.encoder.alu(Alu::Xor, d, s),
            Kind::XorMemory => self.alu_memory(Alu::Xor, instruction),
            Kind::RotateRight => self.rotate(true, instruction),
            Kind::RotateLeft => self.rotate(false, instruction),
            Kind::Swap => {
                if dst == src {
                    return;
                }
                self.map.swap(dst, src);
                self.changed[src] = index + 1;
            }
            Kind::FloatSwap => {
                let any = if instruction.dst() < 4 { f } else { e };
                self.encoder.swap_halves(any);
            }
            Kind::FloatAdd => self.float(Float::Add, f, a),
            Kind::FloatSub => self.float(Float::Sub, f, a),
            Kind::FloatMul => self.float(Float::Mul, e, a),
            Kind::FloatScale => self.encoder.float(Float::Xor, f, f, SCALE),
            Kind::FloatSquareRoot => self.square_root(e),
            Kind::FloatAddMemory => {
                self.convert(instruction);
                self.float(Float::Add, f, TEMPORARY);
            }
            Kind::FloatSubMemory => {
                self.convert(instruction);
                self.float(Float::Sub, f, TEMPORARY);
            }
            Kind::FloatDivMemory => {
                self.convert(instruction);
                self.mask_e(TEMPORARY);
                self.float(Float::Div, e, TEMPORARY);
            }
            Kind::Branch => self.branch(index, instruction),
            Kind::Round => self.round(lane, s, imm),
            Kind::Store => {
                self.encoder.add_half(RAX, d, imm);
                self.encoder.and_half(RAX, instruction.store_mask());
                self.encoder.store(s, Memory::Indexed(RSI, RAX));
            }
        }
        if changes_integer(instruction.kind()) {
            self.changed[dst] = index + 1;
        }
    }

    /// Where a memory operand of an integer instruction lies; computed in `temporary` where it isn't known.
    fn operand(&mut self, temporary: u8, instruction: Instruction) -> Memory {
        if instruction.src() == instruction.dst() {
            return Memory::Base(RSI, (instruction.imm() & L3_MASK).cast_signed());
        }
        self.address(temporary, instruction)
    }

    fn address(&mut self, temporary: u8, instruction: Instruction) -> Memory {
        self.encoder.add_half(temporary, self.map[usize::from(instruction.src())], instruction.imm());
        self.encoder.and_half(temporary, instruction.mask());
        Memory::Indexed(RSI, temporary)
    }

    fn alu_memory(&mut self, op: Alu, instruction: Instruction) {
        let place = self.operand(RAX, instruction);
        self.encoder.alu_memory(op, self.map[usize::from(instruction.dst())], place);
    }

    fn convert(&mut self, instruction: Instruction) {
        let place = self.address(RAX, instruction);
        self.encoder.convert(TEMPORARY, place);
    }

    fn rotate(&mut self, right: bool, instruction: Instruction) {
        let [d, s] = [instruction.dst(), instruction.src()].map(|register| self.map[usize::from(register)]);
        if d == s {
            let by = instruction.imm() as u8 & 63;
            if by != 0 {
                self.encoder.rotate_constant(d, right, by);
            }
        } else {
            self.encoder.mov_half(RCX, s);
            self.encoder.rotate(d, right);
        }
    }

    fn branch(&mut self, index: usize, instruction: Instruction) {
        let dst = usize::from(instruction.dst());
        let (added, mask) = instruction.branch();
        let d = self.map[dst];
        self.encoder.alu_constant(AluConstant::Add, d, added);
        self.encoder.test_half(d, mask);
        let (target, to) = self.begins[self.changed[dst]];
        if to == self.map {
            self.encoder.jump_if_zero(target);
        } else {
            let jump = self.encoder.jump_ahead_if_zero();
            self.detours.push(Detour { jump, from: self.map, to, target });
        }
        self.changed = [index + 1; 8];
    }

    fn round(&mut self, lane: usize, s: u8, imm: u32) {
        // The two bits that count come to bits 2 and 3.
        self.encoder.rotated(RAX, s, imm.wrapping_sub(2) as u8 & 63);
        self.encoder.and_half(RAX, 12);
        self.encoder.store_half(RAX, of_lane(lane, offset_of!(Lane, rounding)));
        if self.wide {
            self.strides.push(self.encoder.mul_half_constant(RAX));
            self.encoder.alu_memory(Alu::Add, RAX, of_lane(lane, offset_of!(Lane, first)));
            self.encoder.store(RAX, of_lane(lane, offset_of!(Lane, next)));
            self.encoder.jump_on(RAX, self.begin);
        } else {
            self.encoder.load_rounding(rounding());
        }
    }

    /// Rounded as the rounding mode says.
    fn float(&mut self, op: Float, dst: u8, src: u8) {
        if self.wide {
            self.rounded.push(self.encoder.float_rounded(op, dst, dst, src));
        } else {
            self.encoder.float(op, dst, dst, src);
        }
    }

    fn square_root(&mut self, dst: u8) {
        if self.wide {
            self.rounded.push(self.encoder.square_root_rounded(dst));
        } else {
            self.encoder.square_root(dst);
        }
    }
}

/// Whether the destination is an integer register that is changed, as far as branches are concerned.
fn changes_integer(kind: Kind) -> bool {
    use Kind::*;
    match kind {
        AddShifted | AddMemory | Sub | SubMemory | Mul | MulMemory | MulHigh | MulHighMemory | SignedMulHigh
        | SignedMulHighMemory | MulReciprocal | Negate | Xor | XorMemory | RotateRight | RotateLeft | Swap => true,
        FloatSwap | FloatAdd | FloatAddMemory | FloatSub | FloatSubMemory | FloatScale | FloatMul | FloatDivMemory
        | FloatSquareRoot | Branch | Round | Store => false,
    }
}

/// Something in the frame.
fn shared(offset: usize) -> Memory {
    Memory::Base(RBP, offset as i32 - Frame::POINTED as i32)
}

fn of_lane(lane: usize, offset: usize) -> Memory {
    shared(offset_of!(Frame, lanes) + lane * size_of::<Lane>() + offset)
}

/// A register of the file.
fn of_file(lane: usize, group: usize, register: u8, bytes: usize) -> Memory {
    of_lane(lane, offset_of!(Lane, file) + group + usize::from(register) * bytes)
}

/// MXCSR for the mode that `rax` says.
fn rounding() -> Memory {
    Memory::IndexedAt(RBP, RAX, offset_of!(Frame, rounding) as i32 - Frame::POINTED as i32)
}
