//! Runs programs as the specification says (4.6 and 5), one instruction after the other: what the compiler is held against.

use std::arch::asm;

use super::super::frame::RegisterFile;
use super::super::program::*;

/// The values of the registers while a program runs.
struct Registers {
    r: [u64; 8],
    f: [[u64; 2]; 4],
    e: [[u64; 2]; 4],
    a: [[u64; 2]; 4],
}

/// One program and what it works on.
pub struct Interpreter<'a> {
    pub program: &'a Program,
    pub scratchpad: &'a mut [u8],
    pub dataset: &'a [u8],
    /// `fprc`
    pub rounding: u32,
}

impl Interpreter<'_> {
    /// All turns; the registers in the end.
    pub fn run(&mut self) -> RegisterFile {
        let a = pairs(self.program.a());
        let mut registers = Registers { r: [0; 8], f: [[0; 2]; 4], e: [[0; 2]; 4], a };
        let (mut ma, mut mx) = (self.program.ma(), self.program.mx());
        let mut lines = [mx, ma];
        let targets = self.targets();
        let [first, second, third, fourth] = self.program.address_registers().map(usize::from);
        for _ in 0..2048 {
            let mixed = registers.r[first] ^ registers.r[second];
            lines[0] ^= mixed as u32;
            lines[1] ^= (mixed >> 32) as u32;
            let [at_0, at_1] = lines.map(|line| (line & LINE_MASK) as usize);
            for register in 0..8 {
                registers.r[register] ^= self.read(at_0 + 8 * register);
            }
            for register in 0..4 {
                registers.f[register] = convert(self.read(at_1 + 8 * register));
                registers.e[register] = self.masked(self.read(at_1 + 32 + 8 * register));
            }
            self.turn(&mut registers, &targets);
            mx = (mx ^ registers.r[third] as u32 ^ registers.r[fourth] as u32) & ITEM_MASK;
            let item = (self.program.dataset_offset() + ma) as usize;
            for register in 0..8 {
                registers.r[register] ^= word(self.dataset, item + 8 * register);
                self.write(at_1 + 8 * register, registers.r[register]);
            }
            std::mem::swap(&mut ma, &mut mx);
            for register in 0..4 {
                for half in 0..2 {
                    registers.f[register][half] ^= registers.e[register][half];
                    self.write(at_0 + 16 * register + 8 * half, registers.f[register][half]);
                }
            }
            lines = [0; 2];
        }
        let Registers { r, f, e, a } = registers;
        RegisterFile { r, f: flat(f), e: flat(e), a: flat(a) }
    }

    /// Where each branch goes.
    fn targets(&self) -> Vec<usize> {
        let mut changed = [0; 8];
        let mut targets = vec![0; INSTRUCTIONS];
        for (index, target) in targets.iter_mut().enumerate() {
            let instruction = self.program.instruction(index);
            let [dst, src] = [instruction.dst(), instruction.src()].map(usize::from);
            match instruction.kind() {
                Kind::Branch => {
                    *target = changed[dst];
                    changed = [index + 1; 8];
                }
                Kind::Swap if dst != src => [changed[dst], changed[src]] = [index + 1; 2],
                Kind::MulReciprocal if instruction.reciprocal().is_some() => changed[dst] = index + 1,
                Kind::Swap | Kind::MulReciprocal => {}
                // The integer instructions, by their place in the table.
                kind if FREQUENCIES[..16].iter().any(|(integer, _)| *integer == kind) => changed[dst] = index + 1,
                _ => {}
            }
        }
        targets
    }

    fn turn(&mut self, registers: &mut Registers, targets: &[usize]) {
        let mut index = 0;
        while index < INSTRUCTIONS {
            let instruction = self.program.instruction(index);
            index += 1;
            if instruction.kind() == Kind::Branch {
                let (added, mask) = instruction.branch();
                let dst = &mut registers.r[usize::from(instruction.dst())];
                *dst = dst.wrapping_add(extended(added));
                if *dst & u64::from(mask) == 0 {
                    index = targets[index - 1];
                }
            } else {
                self.integer(instruction, &mut registers.r);
                self.float(instruction, registers);
            }
        }
    }

    fn integer(&mut self, instruction: Instruction, r: &mut [u64; 8]) {
        let [dst, src] = [instruction.dst(), instruction.src()].map(usize::from);
        let imm = extended(instruction.imm());
        let same = dst == src;
        let (old, other) = (r[dst], if same { imm } else { r[src] });
        let memory = || {
            let address =
                if same { imm & u64::from(L3_MASK) } else { r[src].wrapping_add(imm) & u64::from(instruction.mask()) };
            self.read(address as usize)
        };
        let high = |factor: u64| ((u128::from(old) * u128::from(factor)) >> 64) as u64;
        let signed_high = |factor: u64| ((i128::from(old as i64) * i128::from(factor as i64)) >> 64) as u64;
        r[dst] = match instruction.kind() {
            Kind::AddShifted => {
                old.wrapping_add(r[src] << instruction.shift()).wrapping_add(if dst == 5 { imm } else { 0 })
            }
            Kind::AddMemory => old.wrapping_add(memory()),
            Kind::Sub => old.wrapping_sub(other),
            Kind::SubMemory => old.wrapping_sub(memory()),
            Kind::Mul => old.wrapping_mul(other),
            Kind::MulMemory => old.wrapping_mul(memory()),
            Kind::MulHigh => high(r[src]),
            Kind::MulHighMemory => high(memory()),
            Kind::SignedMulHigh => signed_high(r[src]),
            Kind::SignedMulHighMemory => signed_high(memory()),
            Kind::MulReciprocal => instruction.reciprocal().map_or(old, |factor| old.wrapping_mul(factor)),
            Kind::Negate => old.wrapping_neg(),
            Kind::Xor => old ^ other,
            Kind::XorMemory => old ^ memory(),
            Kind::RotateRight => old.rotate_right(other as u32 & 63),
            Kind::RotateLeft => old.rotate_left(other as u32 & 63),
            Kind::Swap => {
                r.swap(dst, src);
                return;
            }
            Kind::Round => {
                self.rounding = r[src].rotate_right(instruction.imm() & 63) as u32 & 3;
                return;
            }
            Kind::Store => {
                let address = old.wrapping_add(imm) & u64::from(instruction.store_mask());
                self.write(address as usize, r[src]);
                return;
            }
            _ => return,
        };
    }

    fn float(&self, instruction: Instruction, registers: &mut Registers) {
        let number = usize::from(instruction.dst());
        let a = registers.a[usize::from(instruction.src() & 3)];
        let address = registers.r[usize::from(instruction.src())].wrapping_add(extended(instruction.imm()));
        let memory = self.read((address & u64::from(instruction.mask())) as usize);
        let (f, e) = (&mut registers.f[number & 3], &mut registers.e[number & 3]);
        let mode = 0x9FC0 | self.rounding << 13;
        match instruction.kind() {
            Kind::FloatSwap if number < 4 => f.swap(0, 1),
            Kind::FloatSwap => e.swap(0, 1),
            Kind::FloatAdd => *f = add(mode, *f, a),
            Kind::FloatAddMemory => *f = add(mode, *f, convert(memory)),
            Kind::FloatSub => *f = sub(mode, *f, a),
            Kind::FloatSubMemory => *f = sub(mode, *f, convert(memory)),
            Kind::FloatScale => *f = f.map(|value| value ^ SCALE),
            Kind::FloatMul => *e = mul(mode, *e, a),
            Kind::FloatDivMemory => *e = div(mode, *e, self.masked(memory)),
            Kind::FloatSquareRoot => *e = square_root(mode, *e, *e),
            _ => {}
        }
    }

    fn masked(&self, value: u64) -> [u64; 2] {
        let (value, mask) = (convert(value), self.program.e_mask());
        [0, 1].map(|half| value[half] & E_KEPT | mask[half])
    }

    fn read(&self, at: usize) -> u64 {
        word(self.scratchpad, at)
    }

    fn write(&mut self, at: usize, value: u64) {
        self.scratchpad[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn extended(imm: u32) -> u64 {
    i64::from(imm.cast_signed()).cast_unsigned()
}

fn convert(value: u64) -> [u64; 2] {
    [value as i32, (value >> 32) as i32].map(|half| f64::from(half).to_bits())
}

fn pairs(values: [u64; 8]) -> [[u64; 2]; 4] {
    std::array::from_fn(|pair| [values[2 * pair], values[2 * pair + 1]])
}

fn flat(values: [[u64; 2]; 4]) -> [u64; 8] {
    std::array::from_fn(|index| values[index / 2][index % 2])
}

/// An operation on two pairs while MXCSR has another value.
macro_rules! operation {
    ($name:ident, $instruction:literal) => {
        fn $name(mode: u32, mut a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
            let mut before = 0_u32;
            // SAFETY: reads and writes what the pointers point to, and leaves MXCSR as it was.
            unsafe {
                asm!(
                    "stmxcsr [{before}]", "ldmxcsr [{mode}]", "movupd {x}, [{a}]", "movupd {y}, [{b}]",
                    concat!($instruction, " {x}, {y}"), "movupd [{a}], {x}", "ldmxcsr [{before}]",
                    before = in(reg) &raw mut before, mode = in(reg) &raw const mode,
                    a = in(reg) a.as_mut_ptr(), b = in(reg) b.as_ptr(),
                    x = out(xmm_reg) _, y = out(xmm_reg) _, options(nostack),
                );
            }
            a
        }
    };
}

operation!(add, "addpd");
operation!(sub, "subpd");
operation!(mul, "mulpd");
operation!(div, "divpd");
operation!(square_root, "sqrtpd");
