//! The generators of batch steppers: each lane owns one, seeded from `(seed, lane)`, so that lanes are unrelated whatever
//! the batch size, and a lane's episodes do not depend on the other lanes.

/// xoroshiro64* (Blackman and Vigna, 2021): two words of state, never both zero.
#[derive(Clone, Copy)]
pub(crate) struct LaneRng {
    pub(crate) s0: u32,
    pub(crate) s1: u32,
}

impl LaneRng {
    /// The generator of lane `lane`: the SplitMix64 output at position `lane` of a sequence that starts at a hash of
    /// `seed`.
    pub(crate) fn seed(seed: u64, lane: u64) -> Self {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mix = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let word = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add((lane + 1).wrapping_mul(GOLDEN)));
        // All but one of 2^64 seeds are usable.
        let word = if word == 0 { GOLDEN } else { word };
        Self { s0: word as u32, s1: (word >> 32) as u32 }
    }

    /// 32 random bits; the lowest ones are weak.
    #[inline(always)]
    pub(crate) fn bits(&mut self) -> u32 {
        let bits = self.s0.wrapping_mul(0x9e37_79bb);
        let s1 = self.s1 ^ self.s0;
        self.s0 = self.s0.rotate_left(26) ^ s1 ^ (s1 << 9);
        self.s1 = s1.rotate_left(13);
        bits
    }

    /// Uniform in `[0, 1)` with 24 bits.
    #[inline(always)]
    pub(crate) fn uniform(&mut self) -> f32 {
        // The cast through i32 is exact and, unlike one from u32, a single vector instruction.
        (self.bits() >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `0..n`, with an error of each probability below `2^-32`.
    #[inline(always)]
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(n)) >> 32) as u32
    }
}
