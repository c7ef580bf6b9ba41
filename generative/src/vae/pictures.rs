//! Pictures of what a VAE has learned.

use std::f64::consts::PI;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;

use super::Vae;
use super::measures::unit_variances;
use crate::pictures::{RECONSTRUCTED, Sheet, arc};

impl Vae {
    pub(super) fn reconstructions(&self, path: &Path) -> Result<PathBuf, CoreError> {
        let count = RECONSTRUCTED.min(self.test.len());
        let labels: Vec<u32> = (0..count).map(|i| self.test_label(i)).collect();
        let decoded = self.decode(&self.test_codes(count), &labels);
        let pixels = &self.test_pixels[..count * self.test.image_len()];
        Sheet::side_by_side(self.test.shape(), &[pixels, &decoded]).save(path)
    }

    pub(super) fn samples(
        &self,
        path: &Path,
        codes: &[f32],
        labels: &[u32],
        columns: usize,
    ) -> Result<PathBuf, CoreError> {
        Sheet::grid(self.test.shape(), &self.decode(codes, labels), columns).save(path)
    }

    /// One row a unit, the most used first: the unit goes from -3 to 3, the others stay where a test picture has them.
    pub(super) fn traversals(&self, path: &Path, picture: usize) -> Result<PathBuf, CoreError> {
        const STEPS: usize = 11;
        const ROWS: usize = 10;
        let d = self.config.latent;
        let codes = self.test_codes(1_000);
        let variances = unit_variances(&codes, d);
        let mut units: Vec<usize> = (0..d).collect();
        units.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]));
        let picture = picture % (codes.len() / d);
        let base = &codes[picture * d..][..d];
        let rows = units.iter().take(ROWS).map(|unit| {
            let row: Vec<f32> = (0..STEPS)
                .flat_map(|i| {
                    let mut code = base.to_vec();
                    code[*unit] = 6.0 * i as f32 / (STEPS - 1) as f32 - 3.0;
                    code
                })
                .collect();
            self.decode(&row, &[self.test_label(picture); STEPS])
        });
        Sheet::new(self.test.shape()).band(rows.collect()).save(path)
    }

    pub(super) fn interpolations(&self, path: &Path, rows: usize, seed: u64) -> Result<PathBuf, CoreError> {
        const STEPS: usize = 10;
        let d = self.config.latent;
        let (codes, _) = self.draw(2 * rows, seed, None, 1.0);
        let strips = codes.chunks_exact(2 * d).enumerate().map(|(i, pair)| {
            let class = if self.classes > 0 { (i % self.classes) as u32 } else { 0 };
            self.decode(&arc(&pair[..d], &pair[d..], STEPS), &[class; STEPS])
        });
        Sheet::new(self.test.shape()).band(strips.collect()).save(path)
    }

    /// One code a row, one class a column.
    pub(super) fn styles(&self, path: &Path, rows: usize, seed: u64) -> Result<PathBuf, CoreError> {
        let (codes, _) = self.draw(rows, seed, None, 1.0);
        let classes: Vec<u32> = (0..self.classes as u32).collect();
        let rows = codes.chunks_exact(self.config.latent).map(|z| self.decode(&z.repeat(self.classes), &classes));
        Sheet::new(self.test.shape()).band(rows.collect()).save(path)
    }

    /// The whole plane of codes of two numbers, at the quantiles of the prior.
    pub(super) fn manifold(&self, path: &Path) -> Result<PathBuf, CoreError> {
        const SIDE: usize = 20;
        let at = |i: usize| normal_quantile((i as f64 + 0.5) / SIDE as f64) as f32;
        let codes: Vec<f32> = (0..SIDE * SIDE).flat_map(|i| [at(i % SIDE), at(SIDE - 1 - i / SIDE)]).collect();
        self.samples(path, &codes, &[0; SIDE * SIDE], SIDE)
    }
}

/// The standard normal quantile by bisection of its distribution function.
fn normal_quantile(p: f64) -> f64 {
    // Abramowitz and Stegun 1964, 26.2.17; the error is below 1e-7.
    let cdf = |x: f64| {
        let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
        let c = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
        let tail = c.iter().fold(0.0, |sum, c| (sum + c) * t) * (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        if x >= 0.0 { 1.0 - tail } else { tail }
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, x) in [(0.5, 0.0), (0.975, 1.959_964), (0.025, -1.959_964), (0.8413447, 1.0)] {
            assert!((normal_quantile(p) - x).abs() < 1e-5, "{p}");
        }
    }
}
