//! The codebook, which follows the encoder's vectors, and how much of it is used.

use hotfire_core::seed::StreamRng;
use rayon::prelude::*;

/// The codes and the averages that they follow, on the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Codebook {
    width: usize,
    /// `[codes, width]`
    pub(super) codes: Vec<f32>,
    /// Averages of how often each code is chosen in a batch: `[codes]`.
    pub(super) counts: Vec<f32>,
    /// Averages of the sums of the vectors that choose each code: `[codes, width]`.
    pub(super) sums: Vec<f32>,
}

impl Codebook {
    pub(super) fn new(codes: usize, width: usize, rng: &mut StreamRng) -> Self {
        let mut values = vec![0.0; codes * width];
        rng.fill_normal(&mut values);
        values.iter_mut().for_each(|value| *value *= 0.1);
        Self { width, counts: vec![1.0; codes], sums: values.clone(), codes: values }
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// The nearest code of each vector of `[M, width]`.
    pub(super) fn nearest(&self, vectors: &[f32]) -> Vec<u32> {
        let half_norms: Vec<f32> =
            self.codes.chunks_exact(self.width).map(|code| 0.5 * code.iter().map(|x| x * x).sum::<f32>()).collect();
        let nearest = |vector: &[f32]| {
            let mut best = (f32::INFINITY, 0);
            for (i, (code, half_norm)) in self.codes.chunks_exact(self.width).zip(&half_norms).enumerate() {
                let distance = half_norm - vector.iter().zip(code).map(|(a, b)| a * b).sum::<f32>();
                if distance < best.0 {
                    best = (distance, i as u32);
                }
            }
            best.1
        };
        vectors.par_chunks_exact(self.width).map(nearest).collect()
    }

    /// The codes `indices` as vectors: `[M, width]`.
    pub(super) fn look_up(&self, indices: &[u32]) -> Vec<f32> {
        indices.iter().flat_map(|i| self.codes[*i as usize * self.width..][..self.width].iter().copied()).collect()
    }

    /// Moves the codes towards the vectors that chose them, and restarts those that hardly any vector chooses at vectors
    /// of the batch. Returns how many were restarted.
    pub(super) fn follow(
        &mut self,
        vectors: &[f32],
        chosen: &[u32],
        decay: f32,
        restart_below: f32,
        rng: &mut StreamRng,
    ) -> u32 {
        let d = self.width;
        let (mut counts, mut sums) = (vec![0.0f32; self.len()], vec![0.0f32; self.len() * d]);
        for (vector, code) in vectors.chunks_exact(d).zip(chosen) {
            counts[*code as usize] += 1.0;
            sums[*code as usize * d..][..d].iter_mut().zip(vector).for_each(|(s, v)| *s += v);
        }
        let towards = |average: &mut f32, now: f32| *average = decay * *average + (1.0 - decay) * now;
        self.counts.iter_mut().zip(counts).for_each(|(average, now)| towards(average, now));
        self.sums.iter_mut().zip(sums).for_each(|(average, now)| towards(average, now));
        let mut restarted = 0;
        for code in 0..self.len() {
            let own = code * d..(code + 1) * d;
            if self.counts[code] < restart_below {
                let at = rng.below(chosen.len() as u32) as usize;
                self.codes[own.clone()].copy_from_slice(&vectors[at * d..][..d]);
                // As if it had been chosen as often as an average code.
                let usual = (chosen.len() as f32 / self.len() as f32).max(restart_below);
                self.counts[code] = usual;
                for (sum, value) in self.sums[own.clone()].iter_mut().zip(&self.codes[own]) {
                    *sum = usual * value;
                }
                restarted += 1;
            } else {
                for (value, sum) in self.codes[own.clone()].iter_mut().zip(&self.sums[own]) {
                    *value = sum / self.counts[code];
                }
            }
        }
        restarted
    }
}

/// `[N, channels, positions]` to `[N positions, channels]`.
pub(super) fn channels_last(values: &[f32], channels: usize, positions: usize) -> Vec<f32> {
    let picture = |z: &[f32]| {
        (0..positions).flat_map(|p| (0..channels).map(move |c| c * positions + p)).map(|i| z[i]).collect::<Vec<f32>>()
    };
    values.chunks_exact(channels * positions).flat_map(picture).collect()
}

/// `[N positions, channels]` to `[N, channels, positions]`.
pub(super) fn channels_first(values: &[f32], channels: usize, positions: usize) -> Vec<f32> {
    let picture = |z: &[f32]| {
        (0..channels).flat_map(|c| (0..positions).map(move |p| p * channels + c)).map(|i| z[i]).collect::<Vec<f32>>()
    };
    values.chunks_exact(channels * positions).flat_map(picture).collect()
}

/// Perplexity of the distribution of choices, and the number of codes that were chosen.
pub(super) fn usage(chosen: &[u32], codes: usize) -> (f64, usize) {
    let mut counts = vec![0u32; codes];
    chosen.iter().for_each(|code| counts[*code as usize] += 1);
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / chosen.len() as f64);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    (entropy.exp(), counts.iter().filter(|count| **count > 0).count())
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn codes_follow_their_vectors_and_unused_ones_restart() {
        let mut rng = stream(1, "test", 0);
        let mut codebook = Codebook::new(4, 2, &mut rng);
        // Two clusters: two codes are enough, the others have to come to where vectors are.
        let vectors: Vec<f32> = (0..200)
            .flat_map(|i| {
                let centre = if i % 2 == 0 { 3.0 } else { -3.0 };
                [centre + 0.1 * rng.normal(), centre + 0.1 * rng.normal()]
            })
            .collect();
        let mut restarted = 0;
        for _ in 0..300 {
            let chosen = codebook.nearest(&vectors);
            restarted += codebook.follow(&vectors, &chosen, 0.9, 0.5, &mut rng);
        }
        assert!(restarted > 0);
        for code in codebook.codes.chunks(2) {
            assert!((code[0].abs() - 3.0).abs() < 0.4 && (code[0] - code[1]).abs() < 0.5, "{:?}", codebook.codes);
        }
        let (perplexity, used) = usage(&codebook.nearest(&vectors), 4);
        assert!(used == 4 && perplexity > 2.0);
        assert_eq!(usage(&[0, 1, 1, 0], 3), (2.0f64.ln().exp(), 2));
        assert_eq!(channels_last(&channels_first(&vectors, 2, 10), 2, 10), vectors);
    }
}
