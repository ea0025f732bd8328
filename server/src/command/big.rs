//! A natural number of any size: just enough of it to convert between decimal and binary floats.
//!
//! Owns [`Big`]. Called by `float80.rs` alone, which bounds the sizes (a few thousand digits).

use std::cmp::Ordering;

/// Largest power of ten in a word, and its exponent.
const TEN_TO_19: u64 = 10_000_000_000_000_000_000;
const DIGITS_OF_WORD: usize = 19;

/// A natural number: words, lowest first, without zeros on top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Big(Vec<u64>);

impl Big {
    /// The number with these decimal digits.
    pub(super) fn from_digits(digits: impl Iterator<Item = u8>) -> Self {
        let mut number = Self::default();
        let (mut chunk, mut scale) = (0u64, 1u64);
        for digit in digits {
            chunk = chunk * 10 + u64::from(digit - b'0');
            scale *= 10;
            if scale == TEN_TO_19 {
                number.multiply_add(scale, chunk);
                (chunk, scale) = (0, 1);
            }
        }
        number.multiply_add(scale, chunk);
        number
    }

    /// `word × 2^bits`.
    pub(super) fn shifted(word: u64, bits: usize) -> Self {
        let mut number = Self(vec![word]);
        number.trim();
        number.shift_left(bits);
        number
    }

    /// Multiplies by `base` raised to `exponent`.
    pub(super) fn multiply_power(&mut self, base: u64, exponent: u32) {
        let (mut power, mut count) = (base, 1);
        while let Some(higher) = power.checked_mul(base) {
            power = higher;
            count += 1;
        }
        for _ in 0..exponent / count {
            self.multiply_add(power, 0);
        }
        self.multiply_add(base.pow(exponent % count), 0);
    }

    /// `self × factor + more`.
    fn multiply_add(&mut self, factor: u64, more: u64) {
        let mut carry = u128::from(more);
        for word in &mut self.0 {
            let product = u128::from(*word) * u128::from(factor) + carry;
            *word = product as u64;
            carry = product >> 64;
        }
        if carry > 0 {
            self.0.push(carry as u64);
        }
        self.trim();
    }

    pub(super) fn shift_left(&mut self, bits: usize) {
        if self.0.is_empty() {
            return;
        }
        let (words, rest) = (bits / 64, bits % 64);
        if rest > 0 {
            let mut carry = 0;
            for word in &mut self.0 {
                let shifted = *word << rest | carry;
                carry = *word >> (64 - rest);
                *word = shifted;
            }
            if carry > 0 {
                self.0.push(carry);
            }
        }
        self.0.splice(0..0, std::iter::repeat_n(0, words));
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for word in self.0.iter_mut().rev() {
            let shifted = *word >> 1 | carry;
            carry = *word << 63;
            *word = shifted;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Number of bits up to the highest that is set.
    pub(super) fn bits(&self) -> usize {
        self.0
            .last()
            .map_or(0, |top| self.0.len() * 64 - top.leading_zeros() as usize)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Subtracts a number that is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (index, word) in self.0.iter_mut().enumerate() {
            let subtrahend = other.0.get(index).copied().unwrap_or(0);
            let (less, first) = word.overflowing_sub(subtrahend);
            let (less, second) = less.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (less, first || second);
        }
        self.trim();
    }

    /// The number as `mantissa × 2^exponent`. Where bits below the mantissa are lost, its lowest bit is set: enough to
    /// round it correctly to fewer bits.
    pub(super) fn leading(&self) -> (u128, i32) {
        let surplus = self.bits().saturating_sub(127);
        let word = |index: usize| self.0.get(index).copied().unwrap_or(0);
        let (skip, rest) = (surplus / 64, surplus % 64);
        let low = u128::from(word(skip)) | u128::from(word(skip + 1)) << 64;
        let mantissa = match rest {
            0 => low,
            1..=63 => low >> rest | u128::from(word(skip + 2)) << (128 - rest),
            64.. => 0,
        };
        let lost =
            self.0[..skip].iter().any(|word| *word != 0) || word(skip) & ((1 << rest) - 1) != 0;
        (mantissa | u128::from(lost), surplus as i32)
    }

    /// The quotient of two numbers as `mantissa × 2^exponent`, as [`Big::leading`] gives it, with 67 bits and more.
    pub(super) fn divide(mut self, mut divisor: Self) -> (u128, i32) {
        const QUOTIENT_BITS: usize = 67;
        let wanted = divisor.bits() + QUOTIENT_BITS;
        let exponent = self.bits() as i32 - wanted as i32;
        self.shift_left(wanted.saturating_sub(self.bits()));
        divisor.shift_left(QUOTIENT_BITS + usize::try_from(exponent).unwrap_or(0));
        let mut quotient = 0u128;
        for _ in 0..=QUOTIENT_BITS {
            quotient <<= 1;
            if self.compare(&divisor) != Ordering::Less {
                self.subtract(&divisor);
                quotient |= 1;
            }
            divisor.halve();
        }
        (quotient << 1 | u128::from(!self.is_zero()), exponent - 1)
    }

    /// The decimal digits.
    pub(super) fn decimal(mut self) -> String {
        let mut chunks = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u128;
            for word in self.0.iter_mut().rev() {
                let dividend = rest << 64 | u128::from(*word);
                *word = (dividend / u128::from(TEN_TO_19)) as u64;
                rest = dividend % u128::from(TEN_TO_19);
            }
            chunks.push(rest);
            self.trim();
        }
        let mut text = chunks.pop().unwrap_or(0).to_string();
        for chunk in chunks.iter().rev() {
            text.push_str(&format!("{chunk:0DIGITS_OF_WORD$}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_come_back() {
        for text in ["0", "7", "18446744073709551616", &"123456789".repeat(40)] {
            let number = Big::from_digits(text.bytes());
            assert_eq!(number.decimal(), text);
        }
        assert_eq!(Big::shifted(1, 100).decimal(), (1u128 << 100).to_string());
    }

    proptest! {
        #[test]
        fn quotients_are_those_of_words(one: u64, other in 1u64..) {
            let big = |value: u64| Big::from_digits(value.to_string().bytes());
            let (quotient, exponent) = big(one).divide(big(other));
            // The exact quotient lies between `quotient - 1` (its lowest bit may stand for a rest) and `quotient`.
            let scaled = f64::powi(2.0, exponent) * quotient as f64;
            let expected = one as f64 / other as f64;
            prop_assert!((scaled - expected).abs() <= expected * 1e-15);
        }

        #[test]
        fn leading_bits_keep_the_value(words in proptest::collection::vec(any::<u64>(), 1..6)) {
            let mut number = Big(words);
            number.trim();
            let (mantissa, exponent) = number.leading();
            let mut again = Big(vec![mantissa as u64, (mantissa >> 64) as u64]);
            again.trim();
            again.shift_left(exponent as usize);
            prop_assert_eq!(again.bits(), number.bits());
            if exponent == 0 {
                prop_assert_eq!(again, number);
            }
        }
    }
}
