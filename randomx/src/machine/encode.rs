//! Writes x86-64 instructions: 64-bit integers, and vectors of 128 bits by VEX and EVEX (Intel SDM volume 2, 2.2, 2.3 and 2.7).

/// General registers by number.
pub const RAX: u8 = 0;
pub const RCX: u8 = 1;
pub const RDX: u8 = 2;
pub const RBX: u8 = 3;
pub const RBP: u8 = 5;
pub const RSI: u8 = 6;
pub const RDI: u8 = 7;

/// An operand in memory.
#[derive(Clone, Copy)]
pub enum Memory {
    /// `[base + offset]`
    Base(u8, i32),
    /// `[base + index]`, both below `r8`, the base not `rbp`.
    Indexed(u8, u8),
    /// `[base + index + offset]`, both below `r8`.
    IndexedAt(u8, u8, i32),
}

/// `reg = reg OP rm`, 64 bits.
#[derive(Clone, Copy)]
pub enum Alu {
    Add = 0x03,
    Sub = 0x2B,
    Xor = 0x33,
    Mov = 0x8B,
}

/// The same with a constant: what extends the opcode.
#[derive(Clone, Copy)]
pub enum AluConstant {
    Add = 0,
    Sub = 5,
    Xor = 6,
}

/// Operations on two 64-bit floating-point numbers.
#[derive(Clone, Copy)]
pub enum Float {
    Add = 0x58,
    Sub = 0x5C,
    Mul = 0x59,
    Div = 0x5E,
    And = 0x54,
    Or = 0x56,
    Xor = 0x57,
}

/// Writes instructions one after the other.
#[derive(Debug, Default)]
pub struct Encoder {
    pub bytes: Vec<u8>,
}

impl Encoder {
    pub fn at(&self) -> usize {
        self.bytes.len()
    }

    pub fn raw<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes.extend_from_slice(&bytes);
    }

    fn constant(&mut self, value: u32) {
        self.raw(value.to_le_bytes());
    }

    /// `dst = dst OP src`
    pub fn alu(&mut self, op: Alu, dst: u8, src: u8) {
        self.raw([rex(true, dst, src), op as u8, pair(dst, src)]);
    }

    pub fn alu_memory(&mut self, op: Alu, dst: u8, memory: Memory) {
        self.raw([rex(true, dst, memory.base()), op as u8]);
        self.memory(dst, memory);
    }

    pub fn alu_constant(&mut self, op: AluConstant, dst: u8, value: u32) {
        let modrm = pair(op as u8, dst);
        if let Ok(short) = i8::try_from(value.cast_signed()) {
            self.raw([rex(true, 0, dst), 0x83, modrm, short.cast_unsigned()]);
        } else {
            self.raw([rex(true, 0, dst), 0x81, modrm]);
            self.constant(value);
        }
    }

    /// `dst = src`, 32 bits; the upper half becomes zero.
    pub fn mov_half(&mut self, dst: u8, src: u8) {
        self.half(0x8B, dst, src);
    }

    /// `dst = dst ^ src`, 32 bits.
    pub fn xor_half(&mut self, dst: u8, src: u8) {
        self.half(0x33, dst, src);
    }

    fn half(&mut self, opcode: u8, dst: u8, src: u8) {
        if (dst | src) & 8 != 0 {
            self.raw([rex(false, dst, src)]);
        }
        self.raw([opcode, pair(dst, src)]);
    }

    /// `dst = memory`, 32 bits, `dst` below `r8`.
    pub fn load_half(&mut self, dst: u8, memory: Memory) {
        self.raw([0x8B]);
        self.memory(dst, memory);
    }

    pub fn xor_half_memory(&mut self, dst: u8, memory: Memory) {
        self.raw([0x33]);
        self.memory(dst, memory);
    }

    /// `memory = src`, 32 bits, `src` below `r8`.
    pub fn store_half(&mut self, src: u8, memory: Memory) {
        self.raw([0x89]);
        self.memory(src, memory);
    }

    /// `dst = dst & value`, 32 bits, `dst` below `r8`.
    pub fn and_half(&mut self, dst: u8, value: u32) {
        if let Ok(short) = i8::try_from(value.cast_signed()) {
            self.raw([0x83, pair(4, dst), short.cast_unsigned()]);
        } else if dst == RAX {
            self.raw([0x25]);
            self.constant(value);
        } else {
            self.raw([0x81, pair(4, dst)]);
            self.constant(value);
        }
    }

    pub fn store(&mut self, src: u8, memory: Memory) {
        self.raw([rex(true, src, memory.base()), 0x89]);
        self.memory(src, memory);
    }

    /// `dst = src + value`, 32 bits, `dst` below `r8`.
    pub fn add_half(&mut self, dst: u8, src: u8, value: u32) {
        if value == 0 {
            return self.mov_half(dst, src);
        }
        self.raw([rex(false, dst, src), 0x8D]);
        self.memory(dst, Memory::Base(src, value.cast_signed()));
    }

    /// `dst = base + index + offset`
    pub fn address(&mut self, dst: u8, base: u8, index: u8, offset: i32) {
        self.raw([rex(true, dst, 0), 0x8D]);
        self.memory(dst, Memory::IndexedAt(base, index, offset));
    }

    /// `dst = dst + (src << shift) + value`, all from `r8` on.
    pub fn add_shifted(&mut self, dst: u8, src: u8, shift: u8, value: u32) {
        if shift == 0 && value == 0 {
            return self.alu(Alu::Add, dst, src);
        }
        let sib = shift << 6 | (src & 7) << 3 | dst & 7;
        self.raw([0x4F, 0x8D]);
        match i8::try_from(value.cast_signed()) {
            Ok(0) if dst & 7 != RBP => self.raw([(dst & 7) << 3 | 4, sib]),
            Ok(short) => self.raw([0x44 | (dst & 7) << 3, sib, short.cast_unsigned()]),
            Err(_) => {
                self.raw([0x84 | (dst & 7) << 3, sib]);
                self.constant(value);
            }
        }
    }

    pub fn mul(&mut self, dst: u8, src: u8) {
        self.raw([rex(true, dst, src), 0x0F, 0xAF, pair(dst, src)]);
    }

    pub fn mul_memory(&mut self, dst: u8, memory: Memory) {
        self.raw([rex(true, dst, memory.base()), 0x0F, 0xAF]);
        self.memory(dst, memory);
    }

    pub fn mul_constant(&mut self, dst: u8, value: u32) {
        if let Ok(short) = i8::try_from(value.cast_signed()) {
            self.raw([rex(true, dst, dst), 0x6B, pair(dst, dst), short.cast_unsigned()]);
        } else {
            self.raw([rex(true, dst, dst), 0x69, pair(dst, dst)]);
            self.constant(value);
        }
    }

    /// `dst:rax = rdx * src`, the high half to `dst`.
    pub fn mul_high(&mut self, dst: u8, src: u8) {
        self.vex(2, 3, true, dst, RAX, src, 0xF6);
        self.raw([pair(dst, src)]);
    }

    pub fn mul_high_memory(&mut self, dst: u8, memory: Memory) {
        self.vex(2, 3, true, dst, RAX, memory.base(), 0xF6);
        self.memory(dst, memory);
    }

    /// `rdx:rax = rax * src`, signed.
    pub fn signed_mul(&mut self, src: u8) {
        self.raw([rex(true, 0, src), 0xF7, pair(5, src)]);
    }

    pub fn signed_mul_memory(&mut self, memory: Memory) {
        self.raw([rex(true, 0, memory.base()), 0xF7]);
        self.memory(5, memory);
    }

    pub fn negate(&mut self, dst: u8) {
        self.raw([rex(true, 0, dst), 0xF7, pair(3, dst)]);
    }

    /// By `cl`.
    pub fn rotate(&mut self, dst: u8, right: bool) {
        self.raw([rex(true, 0, dst), 0xD3, pair(u8::from(right), dst)]);
    }

    pub fn rotate_constant(&mut self, dst: u8, right: bool, by: u8) {
        self.raw([rex(true, 0, dst), 0xC1, pair(u8::from(right), dst), by]);
    }

    /// `dst = src` rotated right.
    pub fn rotated(&mut self, dst: u8, src: u8, by: u8) {
        self.vex(3, 3, true, dst, 0, src, 0xF0);
        self.raw([pair(dst, src), by]);
    }

    pub fn shift_right(&mut self, dst: u8, by: u8) {
        self.raw([rex(true, 0, dst), 0xC1, pair(5, dst), by]);
    }

    pub fn exchange(&mut self, a: u8, b: u8) {
        self.raw([rex(true, a, b), 0x87, pair(a, b)]);
    }

    /// Compares bits of the lower half of `register` with zero.
    pub fn test_half(&mut self, register: u8, mask: u32) {
        self.raw([rex(false, 0, register), 0xF7, pair(0, register)]);
        self.constant(mask);
    }

    pub fn mov_constant(&mut self, dst: u8, value: u64) {
        self.raw([rex(true, 0, dst), 0xB8 | dst & 7]);
        self.raw(value.to_le_bytes());
    }

    pub fn mov_half_constant(&mut self, dst: u8, value: u32) {
        self.raw([0xB8 | dst]);
        self.constant(value);
    }

    pub fn prefetch(&mut self, near: bool, memory: Memory) {
        self.raw([0x0F, 0x18]);
        self.memory(u8::from(near), memory);
    }

    pub fn load_rounding(&mut self, memory: Memory) {
        self.raw([0x0F, 0xAE]);
        self.memory(2, memory);
    }

    pub fn store_rounding(&mut self, memory: Memory) {
        self.raw([0x0F, 0xAE]);
        self.memory(3, memory);
    }

    /// Jumps to `target`, which is known, if the last result was zero or equal.
    pub fn jump_if_zero(&mut self, target: usize) {
        self.jump_back([0x74], [0x0F, 0x84], target);
    }

    pub fn jump_if_not_zero(&mut self, target: usize) {
        self.jump_back([0x75], [0x0F, 0x85], target);
    }

    pub fn jump(&mut self, target: usize) {
        self.jump_back([0xEB], [0xE9], target);
    }

    fn jump_back<const N: usize>(&mut self, short: [u8; 1], long: [u8; N], target: usize) {
        let distance = target as i64 - self.at() as i64;
        if let Ok(near) = i8::try_from(distance - 2) {
            self.raw(short);
            self.raw([near.cast_unsigned()]);
        } else {
            self.raw(long);
            self.constant((distance - N as i64 - 4) as u32);
        }
    }

    /// Jumps if the last result was zero or equal, to what [`Encoder::land`] will say.
    pub fn jump_ahead_if_zero(&mut self) -> usize {
        self.raw([0x0F, 0x84, 0, 0, 0, 0]);
        self.at()
    }

    /// The jump that ends at `jump` comes to here.
    pub fn land(&mut self, jump: usize) {
        let distance = (self.at() - jump) as u32;
        self.bytes[jump - 4..jump].copy_from_slice(&distance.to_le_bytes());
    }

    pub fn align(&mut self, to: usize) {
        // The longest no-operations that every processor takes at once.
        const NOPS: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0F, 0x1F, 0x00],
            &[0x0F, 0x1F, 0x40, 0x00],
            &[0x0F, 0x1F, 0x44, 0x00, 0x00],
            &[0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00],
            &[0x0F, 0x1F, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x66, 0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        while !self.at().is_multiple_of(to) {
            let missing = to - self.at() % to;
            self.bytes.extend_from_slice(NOPS[missing.min(NOPS.len()) - 1]);
        }
    }

    /// `dst = a OP b`
    pub fn float(&mut self, op: Float, dst: u8, a: u8, b: u8) {
        self.vex(1, 1, false, dst, a, b, op as u8);
        self.raw([pair(dst, b)]);
    }

    pub fn square_root(&mut self, dst: u8) {
        self.vex(1, 1, false, dst, 0, dst, 0x51);
        self.raw([pair(dst, dst)]);
    }

    pub fn swap_halves(&mut self, dst: u8) {
        self.vex(1, 1, false, dst, dst, dst, 0xC6);
        self.raw([pair(dst, dst), 1]);
    }

    /// Two 32-bit integers to floating point.
    pub fn convert(&mut self, dst: u8, memory: Memory) {
        self.vex(1, 2, false, dst, 0, memory.base(), 0xE6);
        self.memory(dst, memory);
    }

    pub fn load_vector(&mut self, dst: u8, memory: Memory) {
        self.vex(1, 1, false, dst, 0, memory.base(), 0x28);
        self.memory(dst, memory);
    }

    pub fn store_vector(&mut self, src: u8, memory: Memory) {
        self.vex(1, 1, false, src, 0, memory.base(), 0x29);
        self.memory(src, memory);
    }

    /// `dst = dst & and | or`; AVX-512 only, registers below 16.
    pub fn and_or(&mut self, dst: u8, and: u8, or: u8) {
        let first = (!dst >> 3 & 1) << 7 | 0x40 | (!or >> 3 & 1) << 5 | 0x10 | 3;
        self.raw([0x62, first, 0x80 | (!and & 15) << 3 | 4 | 1, 0x08, 0x25, pair(dst, or), 0xEA]);
    }

    /// `dst = a OP b` on 512 bits, registers below 16, rounded to nearest. Says where two bits (5 and 6) choose another rounding mode:
    /// only that width has them.
    pub fn float_rounded(&mut self, op: Float, dst: u8, a: u8, b: u8) -> usize {
        self.evex_rounded(dst, a, b, op as u8)
    }

    /// The same for a square root.
    pub fn square_root_rounded(&mut self, dst: u8) -> usize {
        self.evex_rounded(dst, 0, dst, 0x51)
    }

    fn evex_rounded(&mut self, dst: u8, a: u8, b: u8, opcode: u8) -> usize {
        let first = (!dst >> 3 & 1) << 7 | 0x40 | (!b >> 3 & 1) << 5 | 0x10 | 1;
        self.raw([0x62, first, 0x80 | (!a & 15) << 3 | 4 | 1, 0x18, opcode, pair(dst, b)]);
        self.at() - 3
    }

    /// `dst = dst * value`, 32 bits, `dst` below `r8`. Says where the value is.
    pub fn mul_half_constant(&mut self, dst: u8) -> usize {
        self.raw([0x69, pair(dst, dst), 0, 0, 0, 0]);
        self.at() - 4
    }

    /// Jumps to the address in `register`, below `r8`, plus the distance of what follows from `from`.
    pub fn jump_on(&mut self, register: u8, from: usize) {
        self.raw([rex(true, 0, register), 0x81, pair(0, register)]);
        self.constant((self.at() + 6 - from) as u32);
        self.raw([0xFF, pair(4, register)]);
    }

    pub fn jump_memory(&mut self, memory: Memory) {
        self.raw([0xFF]);
        self.memory(4, memory);
    }

    #[allow(clippy::too_many_arguments)]
    fn vex(&mut self, map: u8, prefix: u8, wide: bool, reg: u8, second: u8, rm: u8, opcode: u8) {
        let next = (!second & 15) << 3 | prefix;
        let reg = (!reg >> 3 & 1) << 7;
        if map == 1 && !wide && rm < 8 {
            self.raw([0xC5, reg | next, opcode]);
        } else {
            self.raw([0xC4, reg | 0x40 | (!rm >> 3 & 1) << 5 | map, u8::from(wide) << 7 | next, opcode]);
        }
    }

    fn memory(&mut self, reg: u8, memory: Memory) {
        let reg = (reg & 7) << 3;
        let (rm, offset) = match memory {
            Memory::Base(base, offset) => (base & 7, offset),
            Memory::Indexed(base, index) => return self.raw([reg | 4, index << 3 | base]),
            Memory::IndexedAt(base, index, offset) => {
                let sib = index << 3 | base;
                return match i8::try_from(offset) {
                    Ok(short) => self.raw([0x44 | reg, sib, short.cast_unsigned()]),
                    Err(_) => {
                        self.raw([0x84 | reg, sib]);
                        self.constant(offset.cast_unsigned());
                    }
                };
            }
        };
        let short = i8::try_from(offset);
        self.raw([if short.is_ok() { 0x40 } else { 0x80 } | reg | rm]);
        if rm == 4 {
            self.raw([0x24]);
        }
        match short {
            Ok(short) => self.raw([short.cast_unsigned()]),
            Err(_) => self.constant(offset.cast_unsigned()),
        }
    }
}

impl Memory {
    fn base(self) -> u8 {
        match self {
            Self::Base(base, _) | Self::Indexed(base, _) | Self::IndexedAt(base, ..) => base,
        }
    }
}

const fn rex(wide: bool, reg: u8, rm: u8) -> u8 {
    0x40 | (wide as u8) << 3 | (reg >> 3 & 1) << 2 | (rm >> 3 & 1)
}

/// Two registers.
const fn pair(reg: u8, rm: u8) -> u8 {
    0xC0 | (reg & 7) << 3 | rm & 7
}
