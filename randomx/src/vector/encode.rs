//! Writes vector instructions: EVEX for 512 bits, VEX for 256 (Intel SDM volume 2, 2.3 and 2.7).

/// One operation: opcode map, mandatory prefix, opcode, and the width bit.
#[derive(Clone, Copy)]
pub struct Op {
    map: u8,
    prefix: u8,
    opcode: u8,
    wide_elements: bool,
}

const fn op(map: u8, prefix: u8, opcode: u8, wide_elements: bool) -> Op {
    Op { map, prefix, opcode, wide_elements }
}

const P66: u8 = 1;
const PF3: u8 = 2;

pub const ADD: Op = op(1, P66, 0xD4, true);
pub const SUB: Op = op(1, P66, 0xFB, true);
pub const XOR: Op = op(1, P66, 0xEF, true);
pub const AND: Op = op(1, P66, 0xDB, true);
pub const OR: Op = op(1, P66, 0xEB, true);
/// The product of the low halves.
pub const MUL_HALVES: Op = op(1, P66, 0xF4, true);
/// The low half of the product; AVX-512 only.
pub const MUL_LOW: Op = op(2, P66, 0x40, true);
/// All ones where greater; AVX2 form.
pub const GREATER: Op = op(2, P66, 0x37, true);
/// The signs as a mask; AVX-512 only.
const SIGNS: Op = op(2, PF3, 0x39, true);
const LOAD: Op = op(1, PF3, 0x6F, true);
const STORE: Op = op(1, PF3, 0x7F, true);
const BROADCAST: Op = op(2, P66, 0x59, true);
const SHIFT: Op = op(1, P66, 0x73, true);
const ROTATE: Op = op(1, P66, 0x72, true);

/// Where a pointer argument lies by the System V convention.
#[derive(Clone, Copy)]
pub enum Base {
    /// The first argument, `rdi`.
    State = 7,
    /// The second, `rsi`.
    Constants = 6,
}

/// Writes instructions one after the other.
pub struct Encoder {
    pub bytes: Vec<u8>,
    /// 512 bits rather than 256.
    pub wide: bool,
}

impl Encoder {
    /// `dst = a OP b`
    pub fn three(&mut self, op: Op, dst: u8, a: u8, b: u8) {
        self.prefix(op, dst, a, b, 0, false);
        self.bytes.extend([op.opcode, 0xC0 | (dst & 7) << 3 | (b & 7)]);
    }

    /// `dst = a OP b` where the mask register says so; AVX-512 only.
    pub fn three_masked(&mut self, op: Op, dst: u8, a: u8, b: u8, mask: u8) {
        self.prefix(op, dst, a, b, mask, false);
        self.bytes.extend([op.opcode, 0xC0 | (dst & 7) << 3 | (b & 7)]);
    }

    /// `dst = a OP` the number at `base + offset`, in all places; AVX-512 only.
    pub fn three_constant(&mut self, op: Op, dst: u8, a: u8, base: Base, offset: u32) {
        self.prefix(op, dst, a, base as u8, 0, true);
        self.address(op, dst, base, offset);
    }

    pub fn broadcast(&mut self, dst: u8, base: Base, offset: u32) {
        self.prefix(BROADCAST, dst, 0, base as u8, 0, false);
        self.address(BROADCAST, dst, base, offset);
    }

    pub fn load(&mut self, dst: u8, base: Base, offset: u32) {
        self.prefix(LOAD, dst, 0, base as u8, 0, false);
        self.address(LOAD, dst, base, offset);
    }

    pub fn store(&mut self, src: u8, base: Base, offset: u32) {
        self.prefix(STORE, src, 0, base as u8, 0, false);
        self.address(STORE, src, base, offset);
    }

    pub fn copy(&mut self, dst: u8, src: u8) {
        self.prefix(LOAD, dst, 0, src, 0, false);
        self.bytes.extend([LOAD.opcode, 0xC0 | (dst & 7) << 3 | (src & 7)]);
    }

    pub fn shift_right(&mut self, dst: u8, src: u8, by: u8) {
        self.immediate(SHIFT, 2, dst, src, by);
    }

    pub fn shift_left(&mut self, dst: u8, src: u8, by: u8) {
        self.immediate(SHIFT, 6, dst, src, by);
    }

    /// AVX-512 only.
    pub fn rotate_right(&mut self, dst: u8, src: u8, by: u8) {
        self.immediate(ROTATE, 0, dst, src, by);
    }

    /// Which elements of `src` are negative; AVX-512 only.
    pub fn signs(&mut self, mask: u8, src: u8) {
        self.prefix(SIGNS, mask, 0, src, 0, false);
        self.bytes.extend([SIGNS.opcode, 0xC0 | mask << 3 | (src & 7)]);
    }

    /// Ends a function.
    pub fn leave(&mut self) {
        // vzeroupper; ret
        self.bytes.extend([0xC5, 0xF8, 0x77, 0xC3]);
    }

    fn immediate(&mut self, op: Op, extension: u8, dst: u8, src: u8, value: u8) {
        self.prefix(op, 0, dst, src, 0, false);
        self.bytes.extend([op.opcode, 0xC0 | extension << 3 | (src & 7), value]);
    }

    /// A 32-bit displacement: unlike the short one it is never scaled.
    fn address(&mut self, op: Op, register: u8, base: Base, offset: u32) {
        self.bytes.extend([op.opcode, 0x80 | (register & 7) << 3 | base as u8]);
        self.bytes.extend(offset.to_le_bytes());
    }

    fn prefix(&mut self, op: Op, reg: u8, second: u8, rm: u8, mask: u8, broadcast: bool) {
        let inverted = |number: u8, bit: u8, to: u8| (!number >> bit & 1) << to;
        if self.wide {
            let first = inverted(reg, 3, 7) | inverted(rm, 4, 6) | inverted(rm, 3, 5) | inverted(reg, 4, 4) | op.map;
            let next = u8::from(op.wide_elements) << 7 | (!second & 15) << 3 | 4 | op.prefix;
            let last = 0x40 | u8::from(broadcast) << 4 | inverted(second, 4, 3) | mask;
            self.bytes.extend([0x62, first, next, last]);
        } else {
            let first = inverted(reg, 3, 7) | 0x40 | inverted(rm, 3, 5) | op.map;
            let next = (!second & 15) << 3 | 4 | op.prefix;
            self.bytes.extend([0xC4, first, next]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(wide: bool, write: impl Fn(&mut Encoder)) -> String {
        let mut encoder = Encoder { bytes: Vec::new(), wide };
        write(&mut encoder);
        hex::encode(encoder.bytes)
    }

    /// As GNU as writes them.
    #[test]
    fn instructions_are_encoded_as_an_assembler_does() {
        assert_eq!(bytes(true, |e| e.three(ADD, 1, 2, 3)), "62f1ed48d4cb");
        assert_eq!(bytes(true, |e| e.three(MUL_LOW, 17, 2, 27)), "6282ed4840cb");
        assert_eq!(bytes(true, |e| e.shift_right(9, 1, 32)), "62f1b54873d120");
        assert_eq!(bytes(true, |e| e.three_constant(XOR, 3, 3, Base::Constants, 0x1234)), "62f1e558ef9e34120000");
        assert_eq!(bytes(true, |e| e.signs(1, 5)), "62f2fe4839cd");
        assert_eq!(bytes(true, |e| e.three_masked(SUB, 13, 13, 4, 2)), "6271954afbec");
        assert_eq!(bytes(true, |e| e.load(7, Base::State, 0x1c0)), "62f1fe486fbfc0010000");
        assert_eq!(bytes(false, |e| e.three(ADD, 1, 2, 13)), "c4c16dd4cd");
        assert_eq!(bytes(false, |e| e.three(GREATER, 8, 14, 3)), "c4620d37c3");
        assert_eq!(bytes(false, |e| e.shift_left(9, 1, 32)), "c4e13573f120");
        assert_eq!(bytes(false, |e| e.broadcast(10, Base::Constants, 8)), "c4627d599608000000");
        assert_eq!(bytes(false, |e| e.store(7, Base::State, 0xe0)), "c4e17e7fbfe0000000");
    }
}
