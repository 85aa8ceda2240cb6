//! Targets and work: 256-bit numbers, and the compact form in which a header carries a target (`bits`).
//!
//! A block's hash, read as a number, must not exceed its target; so the smaller the target, the more hashing it takes
//! on average: 2^256 / (target + 1) hashes, which is the block's *work*. The compact form is Bitcoin's: one byte of exponent to
//! the base 256, three of mantissa, whose highest bit is a sign that no target may have.
#![allow(clippy::needless_range_loop, reason = "limbs are named by their places")]

use std::fmt;

use bytes::BytesMut;
use synod_core::wire::Reader;
use synod_core::{Wire, WireError};

/// An unsigned number of 256 bits; limbs from the lowest to the highest.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct U256([u64; 4]);

impl U256 {
    /// Nothing.
    pub const ZERO: U256 = U256([0; 4]);
    /// One.
    pub const ONE: U256 = U256([1, 0, 0, 0]);
    /// The largest.
    pub const MAX: U256 = U256([u64::MAX; 4]);

    /// From 32 bytes, the lowest first: how a hash is read as a number.
    #[must_use]
    pub fn from_le_bytes(bytes: [u8; 32]) -> U256 {
        let mut limbs = [0; 4];
        for (limb, part) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_le_bytes(part.try_into().expect("8 bytes"));
        }
        U256(limbs)
    }

    /// As 32 bytes, the lowest first.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            part.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// A small number.
    #[must_use]
    pub fn of(number: u64) -> U256 {
        U256([number, 0, 0, 0])
    }

    /// The lowest 64 bits.
    #[must_use]
    pub fn low(self) -> u64 {
        self.0[0]
    }

    /// How many bits the number needs.
    #[must_use]
    pub fn bits(self) -> u32 {
        let highest = (0..4).rev().find(|limb| self.0[*limb] != 0);
        highest.map_or(0, |limb| limb as u32 * 64 + 64 - self.0[limb].leading_zeros())
    }

    /// Moved to the left; what leaves the 256 bits is lost.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        clippy::needless_range_loop,
        reason = "limbs are named by their places"
    )]
    pub fn shl(self, by: u32) -> U256 {
        let (limbs, bits) = ((by / 64) as usize, by % 64);
        let mut out = [0; 4];
        for place in limbs..4 {
            out[place] = self.0[place - limbs] << bits;
            if bits > 0 && place > limbs {
                out[place] |= self.0[place - limbs - 1] >> (64 - bits);
            }
        }
        U256(out)
    }

    /// Moved to the right.
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        clippy::needless_range_loop,
        reason = "limbs are named by their places"
    )]
    pub fn shr(self, by: u32) -> U256 {
        let (limbs, bits) = ((by / 64) as usize, by % 64);
        let mut out = [0; 4];
        for place in 0..4usize.saturating_sub(limbs) {
            out[place] = self.0[place + limbs] >> bits;
            if bits > 0 && place + limbs + 1 < 4 {
                out[place] |= self.0[place + limbs + 1] << (64 - bits);
            }
        }
        U256(out)
    }

    /// The sum; the largest number where it would not fit.
    #[must_use]
    pub fn plus(self, other: U256) -> U256 {
        let mut out = [0; 4];
        let mut carry = false;
        for place in 0..4 {
            let (sum, first) = self.0[place].overflowing_add(other.0[place]);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (out[place], carry) = (sum, first || second);
        }
        if carry { U256::MAX } else { U256(out) }
    }

    /// The difference; zero where it would be less.
    #[must_use]
    pub fn minus(self, other: U256) -> U256 {
        if self < other {
            return U256::ZERO;
        }
        let mut out = [0; 4];
        let mut borrow = false;
        for place in 0..4 {
            let (rest, first) = self.0[place].overflowing_sub(other.0[place]);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (out[place], borrow) = (rest, first || second);
        }
        U256(out)
    }

    /// `self * multiplier / divisor`, with the product at its full width: nothing overflows on the way. The largest number
    /// where the result would not fit.
    #[must_use]
    pub fn times_over(self, multiplier: u64, divisor: u64) -> U256 {
        assert!(divisor > 0, "nothing is divided by zero");
        let (product, carry) = self.times(multiplier);
        let mut rest = u128::from(carry);
        if rest >= u128::from(divisor) {
            return U256::MAX;
        }
        let mut out = [0; 4];
        for place in (0..4).rev() {
            let dividend = rest << 64 | u128::from(product.0[place]);
            out[place] = (dividend / u128::from(divisor)) as u64;
            rest = dividend % u128::from(divisor);
        }
        U256(out)
    }

    /// The product's lowest 256 bits, and what lies above them.
    #[must_use]
    pub fn times(self, multiplier: u64) -> (U256, u64) {
        let mut out = [0; 4];
        let mut carry = 0u128;
        for place in 0..4 {
            let product = u128::from(self.0[place]) * u128::from(multiplier) + carry;
            out[place] = product as u64;
            carry = product >> 64;
        }
        (U256(out), carry as u64)
    }

    /// The quotient, bit by bit.
    #[must_use]
    pub fn over(self, divisor: U256) -> U256 {
        assert!(divisor != U256::ZERO, "nothing is divided by zero");
        let (mut quotient, mut rest) = (U256::ZERO, U256::ZERO);
        for bit in (0..self.bits()).rev() {
            // Before it is doubled, the rest is below the divisor; a bit pushed out at the top is worth 2^256.
            let pushed_out = rest.0[3] >> 63 == 1;
            rest = rest.shl(1);
            rest.0[0] |= self.shr(bit).0[0] & 1;
            quotient = quotient.shl(1);
            if pushed_out || rest >= divisor {
                rest = rest.wrapping_minus(divisor);
                quotient.0[0] |= 1;
            }
        }
        quotient
    }

    fn wrapping_minus(self, other: U256) -> U256 {
        let mut out = [0; 4];
        let mut borrow = false;
        for place in 0..4 {
            let (rest, first) = self.0[place].overflowing_sub(other.0[place]);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (out[place], borrow) = (rest, first || second);
        }
        U256(out)
    }

    /// Roughly, for people and for draws.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0.iter().rev().fold(0.0, |sum, limb| sum * 18_446_744_073_709_551_616.0 + *limb as f64)
    }
}

impl PartialOrd for U256 {
    fn partial_cmp(&self, other: &U256) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for U256 {
    fn cmp(&self, other: &U256) -> std::cmp::Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [low, 0, 0, 0] => write!(f, "{low}"),
            [a, b, c, d] => write!(f, "{d:016x}{c:016x}{b:016x}{a:016x}"),
        }
    }
}

impl Wire for U256 {
    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn decode(from: &mut Reader) -> Result<Self, WireError> {
        Ok(U256::from_le_bytes(super::header::array(from, "256-bit number")?))
    }
}

/// Why bits are no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBits {
    /// No hash is below zero.
    #[error("the target is zero")]
    Zero,
    /// The sign is set.
    #[error("the target is negative")]
    Negative,
    /// It needs more than 256 bits.
    #[error("the target overflows 256 bits")]
    Overflow,
}

/// The target that a header's bits stand for (`SetCompact` of Bitcoin's arithmetic).
///
/// # Errors
/// When they stand for none.
pub fn target_of(bits: u32) -> Result<U256, BadBits> {
    let (size, word) = (bits >> 24, bits & 0x007f_ffff);
    let target = match size {
        0..=3 => U256::of(u64::from(word >> (8 * (3 - size)))),
        _ => U256::of(u64::from(word)).shl((8 * (size - 3)).min(256)),
    };
    if word != 0 && bits & 0x0080_0000 != 0 {
        return Err(BadBits::Negative);
    }
    if word != 0 && (size > 34 || word > 0xff && size > 33 || word > 0xffff && size > 32) {
        return Err(BadBits::Overflow);
    }
    if target == U256::ZERO { Err(BadBits::Zero) } else { Ok(target) }
}

/// The bits that stand for a target, rounded down to what they can say (`GetCompact`).
#[must_use]
pub fn bits_of(target: U256) -> u32 {
    let mut size = target.bits().div_ceil(8);
    let mut word = if size <= 3 {
        (target.low() << (8 * (3 - size))) as u32
    } else {
        target.shr(8 * (size - 3)).low() as u32
    };
    if word & 0x0080_0000 != 0 {
        word >>= 8;
        size += 1;
    }
    word | size << 24
}

/// How many hashes a block with this target takes on average: 2^256 / (target + 1).
#[must_use]
pub fn work_of(target: U256) -> U256 {
    if target == U256::MAX {
        return U256::ONE;
    }
    // As in Bitcoin: 2^256 itself does not fit, so (2^256 - target - 1) / (target + 1) + 1.
    U256::MAX.minus(target).over(target.plus(U256::ONE)).plus(U256::ONE)
}

/// The target that takes `hashes` hashes on average.
#[must_use]
pub fn target_for(hashes: u64) -> U256 {
    U256::MAX.times_over(1, hashes.max(1))
}

/// The next target after a period that took from `first` to `last` by its own timestamps and should have taken `timespan`
/// seconds (`CalculateNextWorkRequired`): proportional, by a factor of four at most, and never easier than `limit`.
#[must_use]
pub fn retarget(target: U256, first: u32, last: u32, timespan: u64, limit: U256) -> U256 {
    target.times_over(clamped(first, last, timespan), timespan).min(limit)
}

/// How long a period took, as far as it counts.
pub(super) fn clamped(first: u32, last: u32, timespan: u64) -> u64 {
    // Timestamps may run backwards: that counts as very short.
    u64::from(last.saturating_sub(first)).clamp(timespan / 4, timespan * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bitcoin's own examples of the compact form, right ones and wrong ones (`arith_uint256` tests' cases).
    #[test]
    fn bits_stand_for_targets() {
        assert_eq!(target_of(0x1d00_ffff).map(|it| it.bits()), Ok(224));
        assert_eq!(bits_of(target_of(0x1b04_04cb).expect("a target")), 0x1b04_04cb);
        for (bits, wrong) in [
            (0, BadBits::Zero),
            (0x0112_3456 & 0xff00_ffff, BadBits::Zero),
            (0x0300_0000, BadBits::Zero),
            (0x0492_3456, BadBits::Negative),
            (0x01fe_dcba, BadBits::Negative),
            (0xff12_3456, BadBits::Overflow),
            (0x2201_0000, BadBits::Overflow),
        ] {
            assert_eq!(target_of(bits), Err(wrong), "{bits:08x}");
        }
        for target in [U256::ONE, U256::of(0x7f), U256::of(0x80), U256::of(0x8000), U256::MAX.shr(1)] {
            let rounded = target_of(bits_of(target)).expect("a target's bits are a target");
            assert!(rounded <= target && rounded.bits() == target.bits());
        }
    }

    /// Work is the average number of hashes: powers of two come out exactly, and the genesis block of Bitcoin has 2^32 + 2^16 + 1.
    #[test]
    fn work_counts_hashes() {
        for shift in 1..200 {
            assert_eq!(work_of(U256::MAX.shr(shift)), U256::ONE.shl(shift));
        }
        assert_eq!(work_of(target_of(0x1d00_ffff).expect("a target")), U256::of(0x1_0001_0001));
        assert_eq!(work_of(U256::MAX), U256::ONE);
    }

    /// Long division agrees with what can be computed otherwise.
    #[test]
    fn division_is_right() {
        let mut rng = synod_core::Rng::new(7);
        for _ in 0..500 {
            let (a, b) = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()), rng.next_u64() | 1);
            let wide = U256([a as u64, (a >> 64) as u64, 0, 0]);
            let expected = a / u128::from(b);
            assert_eq!(wide.over(U256::of(b)), U256([expected as u64, (expected >> 64) as u64, 0, 0]));
            assert_eq!(wide.times_over(1, b), wide.over(U256::of(b)));
            let big = U256([rng.next_u64(), rng.next_u64(), rng.next_u64(), rng.next_u64()]);
            assert_eq!(big.over(big), U256::ONE);
            assert_eq!(big.times_over(b, b), big, "the product is kept at full width");
        }
        assert_eq!(U256::MAX.over(U256::MAX.shr(1)), U256::of(2));
    }

    /// A period that ran backwards, and one that took a century, count as a quarter and as fourfold; the limit holds.
    #[test]
    fn retargets_are_clamped() {
        let limit = U256::MAX.shr(4);
        let target = limit.shr(10);
        assert_eq!(retarget(target, 500, 100, 400, limit), target.times_over(1, 4));
        assert_eq!(retarget(target, 0, u32::MAX, 400, limit), target.shl(2));
        assert_eq!(retarget(limit, 0, u32::MAX, 400, limit), limit);
        assert_eq!(retarget(target, 0, 400, 400, limit), target);
    }
}
