//! What a program is made of: its configuration and its instructions (specification, 4.5 and 5).

use crate::SCRATCHPAD_BYTES;

pub const INSTRUCTIONS: usize = 256;
/// Bytes that a program is made from.
pub const PROGRAM_BYTES: usize = 128 + 8 * INSTRUCTIONS;

/// Where 8 bytes may lie, by level (specification, 4.2).
pub const L1_MASK: u32 = 16 * 1024 - 8;
pub const L2_MASK: u32 = 256 * 1024 - 8;
pub const L3_MASK: u32 = SCRATCHPAD_BYTES as u32 - 8;
/// Where a line of 64 bytes may lie.
pub const LINE_MASK: u32 = SCRATCHPAD_BYTES as u32 - 64;
/// Where an item may lie, before the program's offset into the dataset is added.
pub const ITEM_MASK: u32 = (1 << 31) - 64;

/// Conditional jumps look at eight bits, from the eighth on at least.
pub const JUMP_BITS: u32 = 8;
pub const JUMP_OFFSET: u32 = 8;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AddShifted,
    AddMemory,
    Sub,
    SubMemory,
    Mul,
    MulMemory,
    MulHigh,
    MulHighMemory,
    SignedMulHigh,
    SignedMulHighMemory,
    MulReciprocal,
    Negate,
    Xor,
    XorMemory,
    RotateRight,
    RotateLeft,
    Swap,
    FloatSwap,
    FloatAdd,
    FloatAddMemory,
    FloatSub,
    FloatSubMemory,
    FloatScale,
    FloatMul,
    FloatDivMemory,
    FloatSquareRoot,
    Branch,
    Round,
    Store,
}

/// How many of the 256 opcodes each operation has, in their order.
pub const FREQUENCIES: [(Kind, usize); 29] = [
    (Kind::AddShifted, 16),
    (Kind::AddMemory, 7),
    (Kind::Sub, 16),
    (Kind::SubMemory, 7),
    (Kind::Mul, 16),
    (Kind::MulMemory, 4),
    (Kind::MulHigh, 4),
    (Kind::MulHighMemory, 1),
    (Kind::SignedMulHigh, 4),
    (Kind::SignedMulHighMemory, 1),
    (Kind::MulReciprocal, 8),
    (Kind::Negate, 2),
    (Kind::Xor, 15),
    (Kind::XorMemory, 5),
    (Kind::RotateRight, 8),
    (Kind::RotateLeft, 2),
    (Kind::Swap, 4),
    (Kind::FloatSwap, 4),
    (Kind::FloatAdd, 16),
    (Kind::FloatAddMemory, 5),
    (Kind::FloatSub, 16),
    (Kind::FloatSubMemory, 5),
    (Kind::FloatScale, 6),
    (Kind::FloatMul, 32),
    (Kind::FloatDivMemory, 4),
    (Kind::FloatSquareRoot, 6),
    (Kind::Branch, 25),
    (Kind::Round, 1),
    (Kind::Store, 16),
];

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Store; 256];
    let (mut row, mut opcode) = (0, 0);
    while row < FREQUENCIES.len() {
        let mut count = 0;
        while count < FREQUENCIES[row].1 {
            kinds[opcode] = FREQUENCIES[row].0;
            opcode += 1;
            count += 1;
        }
        row += 1;
    }
    assert!(opcode == 256, "each opcode has an operation");
    kinds
};

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Instruction(u64);

impl Instruction {
    pub fn kind(self) -> Kind {
        KINDS[(self.0 & 255) as usize]
    }

    /// The destination among eight registers.
    pub fn dst(self) -> u8 {
        (self.0 >> 8) as u8 & 7
    }

    /// The source among eight registers.
    pub fn src(self) -> u8 {
        (self.0 >> 16) as u8 & 7
    }

    pub fn imm(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn shift(self) -> u8 {
        self.modifier() >> 2 & 3
    }

    pub fn condition(self) -> u8 {
        self.modifier() >> 4
    }

    /// The part of the scratchpad that an address from a register lies in.
    pub fn mask(self) -> u32 {
        if self.modifier() & 3 == 0 { L2_MASK } else { L1_MASK }
    }

    /// The same for a store.
    pub fn store_mask(self) -> u32 {
        if self.condition() >= 14 { L3_MASK } else { self.mask() }
    }

    /// What a branch adds to its register, and the bits that it looks at afterwards.
    pub fn branch(self) -> (u32, u32) {
        let bit = u32::from(self.condition()) + JUMP_OFFSET;
        let added = (self.imm() | 1 << bit) & !(1 << (bit - 1));
        (added, ((1 << JUMP_BITS) - 1) << bit)
    }

    /// What a multiplication by a reciprocal multiplies with: the largest 2^x / imm below 2^64; `None` where it does nothing.
    pub fn reciprocal(self) -> Option<u64> {
        let divisor = self.imm();
        if divisor == 0 || divisor.is_power_of_two() {
            return None;
        }
        Some(((1_u128 << (64 + divisor.ilog2())) / u128::from(divisor)) as u64)
    }

    fn modifier(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[cfg(test)]
    pub fn new(opcode: u8, dst: u8, src: u8, modifier: u8, imm: u32) -> Self {
        Self(u64::from_le_bytes([opcode, dst, src, modifier, 0, 0, 0, 0]) | u64::from(imm) << 32)
    }

    #[cfg(test)]
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// A program, as its random bytes say.
pub struct Program {
    words: [u64; PROGRAM_BYTES / 8],
}

impl Program {
    pub fn new(bytes: &[u8; PROGRAM_BYTES]) -> Self {
        let mut words = [0; PROGRAM_BYTES / 8];
        let (eights, _) = bytes.as_chunks::<8>();
        for (word, bytes) in words.iter_mut().zip(eights) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self { words }
    }

    pub fn instruction(&self, index: usize) -> Instruction {
        Instruction(self.words[16 + index])
    }

    /// The read-only floating-point registers: 1.fraction times 2 to the 0 to 31.
    pub fn a(&self) -> [u64; 8] {
        std::array::from_fn(|index| {
            let word = self.words[index];
            (1023 + (word >> 59)) << 52 | word & ((1 << 52) - 1)
        })
    }

    pub fn ma(&self) -> u32 {
        self.words[8] as u32 & ITEM_MASK
    }

    pub fn mx(&self) -> u32 {
        self.words[10] as u32
    }

    /// `readReg0` to `readReg3`.
    pub fn address_registers(&self) -> [u8; 4] {
        std::array::from_fn(|pair| 2 * pair as u8 + (self.words[12] >> pair & 1) as u8)
    }

    /// Where this program's part of the dataset begins.
    pub fn dataset_offset(&self) -> u32 {
        (self.words[13] % (1 << 19)) as u32 * 64
    }

    /// What is set in both halves of a converted group E register.
    pub fn e_mask(&self) -> [u64; 2] {
        [14, 15].map(|index| {
            let word: u64 = self.words[index];
            (0x300 | word >> 60 << 4) << 52 | word & ((1 << 22) - 1)
        })
    }
}

/// What stays of a converted group E register: the fraction and the lowest four bits of the exponent.
pub const E_KEPT: u64 = (1 << 56) - 1;
/// What a scaling flips.
pub const SCALE: u64 = 0x80F0_0000_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_are_those_of_the_specification() {
        let of = |imm| Instruction::new(0, 0, 0, 0, imm).reciprocal();
        assert_eq!(of(3), Some(12_297_829_382_473_034_410));
        assert_eq!(of(13), Some(11_351_842_506_898_185_609));
        assert_eq!(of(33), Some(17_887_751_829_051_686_415));
        assert_eq!(of(65_537), Some(18_446_462_603_027_742_720));
        assert_eq!(of(15_000_001), Some(10_316_166_306_300_415_204));
        assert_eq!(of(3_845_182_035), Some(10_302_264_209_224_146_340));
        assert_eq!(of(u32::MAX), Some(9_223_372_039_002_259_456));
        assert_eq!((of(0), of(1), of(4096), of(1 << 31)), (None, None, None, None));
    }
}
