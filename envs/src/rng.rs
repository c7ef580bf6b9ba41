//! numpy's default random generator: `SeedSequence` seeding (Melissa O'Neill's `seed_seq` design), PCG64
//! (XSL-RR 128/64; O'Neill, *PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random
//! Number Generation*, 2014), Lemire's bounded integers (2019) and the ziggurat samplers of numpy's `Generator`.
//!
//! Every method gives the values that `numpy.random.Generator(PCG64(SeedSequence(seed)))` gives, draw for draw, so an
//! environment that draws in the reference's order starts in the reference's states.

mod ziggurat;

use crate::{EnvError, StateReader, StateWriter};

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// numpy's `Generator(PCG64(SeedSequence(seed)))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpRng {
    state: u128,
    increment: u128,
    /// The upper half of the last word split by [`NpRng::next_u32`], if it was not used yet.
    half: Option<u32>,
}

impl NpRng {
    /// The generator of `numpy.random.default_rng(seed)`.
    pub fn seed(seed: u64) -> Self {
        Self::seed_u128(seed.into())
    }

    /// Like [`NpRng::seed`], for seeds of more than 64 bits: numpy's seeds are unbounded.
    pub fn seed_u128(seed: u128) -> Self {
        let mut words = [0; 8];
        SeedSequence::new(seed).generate(&mut words);
        let wide = |at: usize| words[at..at + 2].iter().rev().fold(0u64, |all, w| all << 32 | u64::from(*w));
        let start = u128::from(wide(0)) << 64 | u128::from(wide(2));
        let stream = u128::from(wide(4)) << 64 | u128::from(wide(6));
        let mut rng = Self { state: 0, increment: stream << 1 | 1, half: None };
        rng.advance();
        rng.state = rng.state.wrapping_add(start);
        rng.advance();
        rng
    }

    #[inline]
    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        ((self.state >> 64) as u64 ^ self.state as u64).rotate_right((self.state >> 122) as u32)
    }

    /// 32 random bits: the lower half of a new word, then its upper half.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let word = self.next_u64();
            self.half = Some((word >> 32) as u32);
            word as u32
        })
    }

    /// A uniform number in `[0, 1)`: `Generator.random()`.
    #[inline]
    pub fn random(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform number in `[low, high)`: `Generator.uniform(low, high)`.
    #[inline]
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random()
    }

    /// A uniform integer in `[low, high)`: `Generator.integers(low, high)`. An empty range counts as `low` alone.
    ///
    /// A range of one integer draws nothing; up to 2^32 integers draw 32 bits.
    #[inline]
    pub fn integers(&mut self, low: i64, high: i64) -> i64 {
        let last = high.wrapping_sub(low).wrapping_sub(1) as u64;
        if high <= low {
            return low;
        }
        low.wrapping_add(self.below_or_equal(last) as i64)
    }

    /// A uniform integer in `[0, last]`, by Lemire's method.
    fn below_or_equal(&mut self, last: u64) -> u64 {
        if last == 0 {
            return 0;
        }
        if let Ok(last) = u32::try_from(last) {
            if last == u32::MAX {
                return self.next_u32().into();
            }
            let count = last + 1;
            let mut product = u64::from(self.next_u32()) * u64::from(count);
            if (product as u32) < count {
                let threshold = (u32::MAX - last) % count;
                while (product as u32) < threshold {
                    product = u64::from(self.next_u32()) * u64::from(count);
                }
            }
            return product >> 32;
        }
        if last == u64::MAX {
            return self.next_u64();
        }
        let count = last + 1;
        let mut product = u128::from(self.next_u64()) * u128::from(count);
        if (product as u64) < count {
            let threshold = (u64::MAX - last) % count;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(count);
            }
        }
        (product >> 64) as u64
    }

    /// Fair bits, four from each 32 random bits: `Generator.integers(0, 2, size, dtype=int8)`.
    pub fn bits(&mut self, size: usize) -> impl Iterator<Item = u8> + '_ {
        let mut word = 0;
        (0..size).map(move |i| {
            word = if i % 4 == 0 { self.next_u32() } else { word >> 8 };
            (word as u8) >> 7
        })
    }

    /// A draw from the standard normal distribution: `Generator.standard_normal()`.
    pub fn normal(&mut self) -> f64 {
        const TAIL: f64 = 3.654_152_885_361_009;
        const INVERSE_TAIL: f64 = 0.273_661_237_329_758_3;
        loop {
            let bits = self.next_u64();
            let layer = (bits & 0xff) as usize;
            let magnitude = bits >> 9 & 0x000f_ffff_ffff_ffff;
            let x = magnitude as f64 * ziggurat::NORMAL_W[layer];
            let x = if bits >> 8 & 1 == 1 { -x } else { x };
            if magnitude < ziggurat::NORMAL_K[layer] {
                return x;
            }
            if layer == 0 {
                loop {
                    let beyond = -INVERSE_TAIL * (-self.random()).ln_1p();
                    let height = -(-self.random()).ln_1p();
                    if height + height > beyond * beyond {
                        return if magnitude >> 8 & 1 == 1 { -(TAIL + beyond) } else { TAIL + beyond };
                    }
                }
            }
            let (outer, inner) = (ziggurat::NORMAL_F[layer - 1], ziggurat::NORMAL_F[layer]);
            if (outer - inner) * self.random() + inner < (-0.5 * x * x).exp() {
                return x;
            }
        }
    }

    /// A draw from the exponential distribution of mean 1: `Generator.standard_exponential()`.
    pub fn exponential(&mut self) -> f64 {
        const TAIL: f64 = 7.697_117_470_131_05;
        loop {
            let bits = self.next_u64() >> 3;
            let layer = (bits & 0xff) as usize;
            let magnitude = bits >> 8;
            let x = magnitude as f64 * ziggurat::EXPONENTIAL_W[layer];
            if magnitude < ziggurat::EXPONENTIAL_K[layer] {
                return x;
            }
            if layer == 0 {
                return TAIL - (-self.random()).ln_1p();
            }
            let (outer, inner) = (ziggurat::EXPONENTIAL_F[layer - 1], ziggurat::EXPONENTIAL_F[layer]);
            if (outer - inner) * self.random() + inner < (-x).exp() {
                return x;
            }
        }
    }

    /// Shuffles in place: `Generator.shuffle(items)`.
    ///
    /// Its integers are drawn by masking and rejecting, not by Lemire's method, as numpy's are.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let mask = u64::MAX >> (last as u64).leading_zeros();
            let other = loop {
                let word = if mask <= u32::MAX.into() { self.next_u32().into() } else { self.next_u64() };
                let index = (word & mask) as usize;
                if index <= last {
                    break index;
                }
            };
            items.swap(last, other);
        }
    }

    /// Writes the whole state of the generator.
    pub fn save_state(&self, to: &mut StateWriter) {
        to.u128(self.state);
        to.u128(self.increment);
        to.bool(self.half.is_some());
        to.u32(self.half.unwrap_or(0));
    }

    /// Restores what [`NpRng::save_state`] wrote.
    ///
    /// # Errors
    /// [`EnvError::State`] if the bytes are not a generator's state.
    pub fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let (state, increment) = (from.u128()?, from.u128()?);
        if increment & 1 == 0 {
            return Err(EnvError::State { expected: "an odd increment".into(), found: increment.to_string() });
        }
        let (has_half, half) = (from.bool()?, from.u32()?);
        *self = Self { state, increment, half: has_half.then_some(half) };
        Ok(())
    }
}

/// numpy's `SeedSequence`: hashes a seed of any length into a pool of 128 bits, and that into a state of any length.
struct SeedSequence {
    pool: [u32; 4],
}

impl SeedSequence {
    fn new(seed: u128) -> Self {
        let words: [u32; 4] = std::array::from_fn(|i| (seed >> (32 * i)) as u32);
        let mut constant: u32 = 0x43b0_d7e5;
        let mut hash = move |value: u32| {
            let value = value ^ constant;
            constant = constant.wrapping_mul(0x931e_8875);
            let value = value.wrapping_mul(constant);
            value ^ value >> 16
        };
        // Words beyond the seed's own hash as zeros do, so a seed of fewer words needs no case of its own.
        let mut pool = words.map(&mut hash);
        for source in 0..4 {
            for target in 0..4 {
                if source != target {
                    let mixed = pool[target]
                        .wrapping_mul(0xca01_f9dd)
                        .wrapping_sub(hash(pool[source]).wrapping_mul(0x4973_f715));
                    pool[target] = mixed ^ mixed >> 16;
                }
            }
        }
        Self { pool }
    }

    fn generate(&self, words: &mut [u32]) {
        let mut constant: u32 = 0x8b51_f9dd;
        for (word, value) in words.iter_mut().zip(self.pool.iter().cycle()) {
            let hashed = value ^ constant;
            constant = constant.wrapping_mul(0x58f3_8ded);
            let hashed = hashed.wrapping_mul(constant);
            *word = hashed ^ hashed >> 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SeedSequence;

    /// `SeedSequence(42)` of numpy 2.4.6; the recordings in `tests/rng.rs` cover what follows from it.
    #[test]
    fn seed_sequence_hashes_like_numpy() {
        let sequence = SeedSequence::new(42);
        let mut words = [0; 2];
        sequence.generate(&mut words);
        assert_eq!(
            (sequence.pool, words),
            ([1_662_858_758, 128_880_814, 1_875_164_712, 753_753_205], [3_444_837_047, 2_669_555_309])
        );
    }
}
