//! Random streams: every draw of a run comes from a stream named by `(run seed, stream name, step)`.
//!
//! The generator is xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 2021),
//! whose output is fixed by its definition. It is seeded with SplitMix64 outputs, as its authors advise, from a hash of
//! the three parts of the name. Floating-point draws use only operations that IEEE 754 fixes and a software logarithm,
//! so that all draws are the same on every platform.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// The stream `name` of the run with `run_seed`, at `step`. Equal arguments give equal draws.
pub fn stream(run_seed: u64, name: &str, step: u64) -> StreamRng {
    // The length is absorbed too, so that no two (name, step) pairs run into each other.
    let mut state = absorb(0x6a09_e667_f3bc_c908, run_seed);
    state = absorb(state, name.len() as u64);
    for chunk in name.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = absorb(state, u64::from_le_bytes(word));
    }
    state = absorb(state, step);
    StreamRng { generator: Xoshiro256PlusPlus::seed_from_u64(state), spare_normal: None }
}

/// One step of a Merkle-Damgard chain over SplitMix64's finalizer, which is a bijection of 64-bit words.
fn absorb(state: u64, word: u64) -> u64 {
    let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).wrapping_add(state.rotate_left(23))
}

/// A random stream. It can be stored in a checkpoint and goes on where it stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamRng {
    generator: Xoshiro256PlusPlus,
    spare_normal: Option<f32>,
}

impl StreamRng {
    /// A uniform 64-bit integer.
    pub fn next_u64(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// A uniform number in `[0, 1)`: a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// A uniform number in `[0, 1)`: a multiple of 2⁻⁵³.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform integer in `[0, bound)`, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    ///
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "the interval [0, 0) is empty");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = (self.next_u64() >> 32) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// A draw from the standard normal distribution, by the polar method (Marsaglia and Bray, 1964).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        loop {
            let bits = self.next_u64();
            let x = centred(bits as u32);
            let y = centred((bits >> 32) as u32);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                let scale = (-2.0 * libm::logf(square) / square).sqrt();
                self.spare_normal = Some(y * scale);
                return x * scale;
            }
        }
    }

    /// Fills `out` with standard normal draws.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|value| *value = self.normal());
    }

    /// Shuffles `items` uniformly (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// Maps a 32-bit integer to the open interval (-1, 1), symmetric about 0.
fn centred(bits: u32) -> f32 {
    ((bits >> 8) as f32 + 0.5) * (2.0 / (1u32 << 24) as f32) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of an independent implementation, in Python.
    #[test]
    fn golden_draws() {
        let mut rng = stream(1, "actions", 0);
        assert_eq!([rng.next_u64(), rng.next_u64()], [797_353_009_487_901_616, 9_154_004_455_994_891_172]);
        let mut rng = stream(1, "actions", 0);
        assert_eq!([rng.normal().to_bits(), rng.normal().to_bits()], [0xbdc4_d9ec, 0xbf09_c556]);
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let first = |seed, name: &str, step| stream(seed, name, step).next_u64();
        let mut draws = vec![
            first(1, "actions", 0),
            first(2, "actions", 0),
            first(1, "actionss", 0),
            first(1, "action", 0),
            first(1, "actions\0", 0),
            first(1, "actions", 1),
            first(0, "", 0),
            first(0, "", 1),
            first(1, "", 0),
        ];
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 9);
    }

    #[test]
    fn uniform_draws_are_uniform() {
        let mut rng = stream(3, "uniform", 0);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[(rng.uniform() * 10.0) as usize] += 1;
        }
        // Chi-square with 9 degrees of freedom: 27.9 is the 99.9 % point.
        let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4).sum();
        assert!(chi_square < 27.9, "{chi_square}");
    }

    #[test]
    fn bounded_draws_cover_the_interval_evenly() {
        let mut rng = stream(3, "below", 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - 1e4).powi(2) / 1e4).sum();
        assert!(chi_square < 22.5, "{chi_square}");
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn normal_draws_have_the_moments_of_the_normal_distribution() {
        let mut rng = stream(4, "normal", 0);
        let mut draws = vec![0.0; 200_000];
        rng.fill_normal(&mut draws);
        let moment = |power| draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.01);
        assert!((moment(2) - 1.0).abs() < 0.015);
        assert!(moment(3).abs() < 0.05);
        assert!((moment(4) - 3.0).abs() < 0.1);
        let beyond_two = draws.iter().filter(|x| x.abs() > 2.0).count() as f64 / draws.len() as f64;
        assert!((beyond_two - 0.0455).abs() < 0.002, "{beyond_two}");
    }

    #[test]
    fn shuffle_is_a_permutation_that_moves_things() {
        let mut items: Vec<u32> = (0..100).collect();
        stream(5, "shuffle", 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_stored_stream_goes_on_where_it_stopped() {
        let mut rng = stream(6, "stored", 0);
        rng.normal();
        let mut restored: StreamRng = serde_json::from_str(&serde_json::to_string(&rng).unwrap()).unwrap();
        for _ in 0..5 {
            assert_eq!(rng.normal().to_bits(), restored.normal().to_bits());
        }
    }
}
