//! Distances between the distribution of samples and that of real data.

use hotfire_core::metrics::Metrics;
use hotfire_core::seed::stream;
use rayon::prelude::*;

use super::features::{Classified, DigitClassifier, FEATURES};
use super::linalg::{mean_and_covariance, product, square_root, symmetric_eigen};
use crate::data::Images;

/// Fréchet distance between Gaussians fitted to `[N, d]` features (Heusel et al. 2017, arXiv:1706.08500):
/// `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, the trace of the root by symmetric eigenvalues.
pub fn fid(samples: &[f32], real: &[f32], d: usize) -> f64 {
    let ((m1, c1), (m2, c2)) = (mean_and_covariance(samples, d), mean_and_covariance(real, d));
    let root = square_root(&c1, d);
    let mut inner = product(&product(&root, &c2, d), &root, d);
    for i in 0..d {
        for j in 0..i {
            let mean = 0.5 * (inner[i * d + j] + inner[j * d + i]);
            (inner[i * d + j], inner[j * d + i]) = (mean, mean);
        }
    }
    let cross: f64 = symmetric_eigen(&inner, d).0.iter().map(|value| value.max(0.0).sqrt()).sum();
    let trace = |c: &[f64]| (0..d).map(|i| c[i * d + i]).sum::<f64>();
    let means: f64 = m1.iter().zip(&m2).map(|(a, b)| (a - b).powi(2)).sum();
    means + trace(&c1) + trace(&c2) - 2.0 * cross
}

/// Kernel distance between `[N, d]` features (Binkowski et al. 2018, arXiv:1801.01401): the unbiased squared maximum
/// mean discrepancy with the kernel `(x y / d + 1)^3`, over all pairs.
pub fn kid(samples: &[f32], real: &[f32], d: usize) -> f64 {
    let mean = |a: &[f32], b: &[f32], same: bool| {
        let row = |i: usize, x: &[f32]| {
            let others = b.chunks_exact(d).enumerate().filter(|(j, _)| !(same && i == *j));
            let kernel = |y: &[f32]| (f64::from(dot(x, y)) / d as f64 + 1.0).powi(3);
            others.map(|(_, y)| kernel(y)).sum::<f64>()
        };
        // Rows are summed in order, so that the result does not depend on the threads.
        let rows: Vec<f64> = a.par_chunks_exact(d).enumerate().map(|(i, x)| row(i, x)).collect();
        let (n, m) = (a.len() / d, b.len() / d);
        rows.iter().sum::<f64>() / (n * if same { m - 1 } else { m }) as f64
    };
    mean(samples, samples, true) + mean(real, real, true) - 2.0 * mean(samples, real, false)
}

/// Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991): the share of samples inside the real
/// manifold and of real examples inside that of the samples; a manifold is the union of balls around its points that
/// reach to the `k`-th nearest neighbour.
pub fn precision_recall(samples: &[f32], real: &[f32], d: usize, k: usize) -> (f64, f64) {
    let radii = |points: &[f32]| -> Vec<f32> {
        nearest_distances(points, points, d, k + 1).chunks_exact(k + 1).map(|near| near[k]).collect()
    };
    let inside = |points: &[f32], manifold: &[f32], radii: &[f32]| {
        let is_inside = |x: &[f32]| manifold.chunks_exact(d).zip(radii).any(|(y, r)| squared_distance(x, y) <= r * r);
        let count = points.par_chunks_exact(d).filter(|x| is_inside(x)).count();
        count as f64 / (points.len() / d) as f64
    };
    (inside(samples, real, &radii(real)), inside(real, samples, &radii(samples)))
}

/// Distances from each of `[N, d]` points to its `k` nearest of `[M, d]` others, nearest first: `[N, k]`.
///
/// # Panics
/// If there are fewer than `k` others.
pub fn nearest_distances(points: &[f32], others: &[f32], d: usize, k: usize) -> Vec<f32> {
    assert!(others.len() >= k * d && k > 0, "{k} neighbours of {} points", others.len() / d);
    let near = |x: &[f32]| {
        let mut distances: Vec<f32> = others.chunks_exact(d).map(|y| squared_distance(x, y)).collect();
        distances.select_nth_unstable_by(k - 1, f32::total_cmp);
        distances.truncate(k);
        distances.sort_by(f32::total_cmp);
        distances.iter_mut().for_each(|x| *x = x.sqrt());
        distances
    };
    points.par_chunks_exact(d).flat_map_iter(near).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y| x * y)
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y| (x - y) * (x - y))
}

/// The sum of `f` over pairs, in a fixed order of 8 lanes that vectorises.
#[inline(always)]
fn lanes(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let (xs, ys) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| f(*x, *y)).sum();
    for (x, y) in xs.zip(ys) {
        for l in 0..8 {
            sums[l] += f(x[l], y[l]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Sliced Wasserstein distance of order 1 between two sets of `[N, d]` points (Rabin et al. 2011): the mean over
/// `directions` random directions of the distance between the sorted projections, cut to the smaller set.
pub fn sliced_wasserstein(a: &[f32], b: &[f32], d: usize, directions: usize, seed: u64) -> f64 {
    let mut rng = stream(seed, "sliced Wasserstein", 0);
    let n = (a.len() / d).min(b.len() / d);
    let total: f64 = (0..directions)
        .map(|_| {
            let mut direction = vec![0.0f32; d];
            rng.fill_normal(&mut direction);
            let norm = dot(&direction, &direction).sqrt();
            let project = |points: &[f32]| {
                let mut along: Vec<f32> = points.chunks_exact(d).take(n).map(|x| dot(x, &direction) / norm).collect();
                along.sort_by(f32::total_cmp);
                along
            };
            let pairs = project(a).into_iter().zip(project(b));
            pairs.map(|(x, y)| f64::from((x - y).abs())).sum::<f64>() / n as f64
        })
        .sum();
    total / directions as f64
}

/// Scores samples of digits against real ones.
#[derive(Debug)]
pub struct SampleScores {
    classifier: DigitClassifier,
    real: Vec<f32>,
}

impl SampleScores {
    /// Whether so many samples of a model of the data set `name` can be scored against its pictures `real`: digits, and
    /// more of both than there are features, since fewer have no covariance to speak of.
    pub fn serves(name: &str, real: &Images, samples: usize) -> bool {
        name == "mnist" && real.shape() == [1, 28, 28] && real.len().min(samples) > FEATURES
    }

    /// A scorer for real pictures `[N, 28, 28]`.
    pub fn new(real: &[f32]) -> Self {
        let classifier = DigitClassifier::new();
        Self { real: classifier.classify(real).features, classifier }
    }

    /// `fid`, `kid`, `precision` and `recall` of samples `[M, 28, 28]`, and what the classifier makes of them.
    pub fn score(&self, samples: &[f32]) -> (Metrics, Classified) {
        let classified = self.classifier.classify(samples);
        let features = &classified.features;
        let mut metrics = Metrics::new();
        metrics.push("fid", fid(features, &self.real, FEATURES));
        metrics.push("kid", kid(features, &self.real, FEATURES));
        let (precision, recall) = precision_recall(features, &self.real, FEATURES, 3);
        metrics.push("precision", precision);
        metrics.push("recall", recall);
        (metrics, classified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(n: usize, shift: f32, scale: f32, seed: u64) -> Vec<f32> {
        let mut rng = stream(seed, "test", 0);
        (0..n).flat_map(|_| [scale * rng.normal() + shift, rng.normal()]).collect()
    }

    #[test]
    fn few_pictures_are_not_scored() {
        let digits = |n: usize| Images {
            channels: 1,
            height: 28,
            width: 28,
            pixels: vec![0; 784 * n],
            labels: None,
            classes: 0,
        };
        assert!(SampleScores::serves("mnist", &digits(129), 129));
        for (name, real, samples) in [("mnist", 3, 1000), ("mnist", 1000, 3), ("fashion-mnist", 1000, 1000)] {
            assert!(!SampleScores::serves(name, &digits(real), samples), "{name}: {real} and {samples}");
        }
    }

    /// Gaussians with a diagonal covariance have the distance `|m1 - m2|^2 + sum (s1 - s2)^2`.
    #[test]
    fn frechet_distance_of_gaussians_is_the_formula() {
        let distance = fid(&cloud(40_000, 1.0, 2.0, 1), &cloud(40_000, 0.0, 1.0, 2), 2);
        assert!((distance - 2.0).abs() < 0.1, "{distance}");
        let same = cloud(500, 0.0, 1.0, 1);
        assert!(fid(&same, &same, 2).abs() < 1e-9);
    }

    #[test]
    fn kernel_distance_is_unbiased_and_sees_a_shift() {
        let [a, b, c] = [cloud(1500, 0.0, 1.0, 1), cloud(1500, 0.0, 1.0, 2), cloud(1500, 1.0, 1.0, 3)];
        let (same, shifted) = (kid(&a, &b, 2), kid(&a, &c, 2));
        assert!(same.abs() < 0.05 && shifted > 0.5, "{same} {shifted}");
    }

    #[test]
    fn precision_and_recall_tell_a_part_from_a_whole() {
        // The samples cover only a fifth of the real width: all are plausible, few of the real ones are reached.
        let (narrow, wide) = (cloud(800, 0.0, 0.1, 1), cloud(800, 0.0, 3.0, 2));
        let (precision, recall) = precision_recall(&narrow, &wide, 2, 3);
        assert!(precision > 0.7 && recall < 0.4, "{precision} {recall}");
        assert_eq!(nearest_distances(&[0.0, 0.0], &[3.0, 4.0, 1.0, 0.0, 0.0, 2.0], 2, 2), [1.0, 2.0]);
    }

    #[test]
    fn sliced_distance_of_a_shift_is_its_mean_projection() {
        let a = cloud(2000, 0.0, 1.0, 1);
        let b: Vec<f32> = a.chunks(2).flat_map(|p| [p[0] + 1.0, p[1]]).collect();
        // The mean of |cos| over directions is 2 / pi.
        let distance = sliced_wasserstein(&a, &b, 2, 2000, 1);
        assert!((distance - std::f64::consts::FRAC_2_PI).abs() < 0.02, "{distance}");
        assert_eq!(sliced_wasserstein(&a, &a, 2, 10, 1), 0.0);
    }
}
