//! Looking at codes: a map of a data set's codes, and the Gaussian that they fill.

use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::plot::{ScatterPlot, scatter_png};
use hotfire_core::seed::StreamRng;

use crate::metrics::{mean_and_covariance, symmetric_eigen};

/// Codes on the map.
const SHOWN: usize = 2_500;

/// A Gaussian fitted to codes, by its principal axes.
pub(crate) struct CodeGaussian {
    mean: Vec<f64>,
    /// Standard deviations along the axes, largest first.
    deviations: Vec<f64>,
    /// Axis `i` is row `i`.
    axes: Vec<f64>,
}

impl CodeGaussian {
    /// Fits codes `[N, d]`.
    pub fn fit(codes: &[f32], d: usize) -> Self {
        let (mean, covariance) = mean_and_covariance(codes, d);
        let (values, axes) = symmetric_eigen(&covariance, d);
        Self { mean, deviations: values.iter().map(|value| value.max(0.0).sqrt()).collect(), axes }
    }

    /// A code drawn from it.
    pub fn draw(&self, rng: &mut StreamRng) -> Vec<f32> {
        let d = self.mean.len();
        let mut code = self.mean.clone();
        for (axis, deviation) in self.axes.chunks_exact(d).zip(&self.deviations) {
            let along = deviation * f64::from(rng.normal());
            code.iter_mut().zip(axis).for_each(|(c, a)| *c += along * a);
        }
        code.into_iter().map(|c| c as f32).collect()
    }

    /// A code's coordinates along the first two axes.
    fn project(&self, code: &[f32]) -> (f64, f64) {
        let d = self.mean.len();
        let along = |axis: usize| {
            let axis = &self.axes[axis * d..][..d];
            axis.iter().zip(code.iter().zip(&self.mean)).map(|(a, (c, m))| a * (f64::from(*c) - m)).sum()
        };
        (along(0), if d > 1 { along(1) } else { 0.0 })
    }
}

/// Draws codes `[N, d]` on the plane, coloured by their labels: as they are where `d` is 2, else along their first two
/// principal components.
pub(crate) fn latent_map(
    path: &Path,
    title: &str,
    codes: &[f32],
    d: usize,
    labels: Option<&[u32]>,
) -> Result<PathBuf, CoreError> {
    let gaussian = CodeGaussian::fit(codes, d);
    let groups = labels.map_or(1, |labels| labels.iter().max().map_or(1, |label| *label as usize + 1));
    let mut named: Vec<(String, Vec<(f64, f64)>)> =
        (0..groups).map(|i| (if labels.is_some() { i.to_string() } else { String::new() }, Vec::new())).collect();
    for (i, code) in codes.chunks_exact(d).take(SHOWN).enumerate() {
        let point = if d == 2 { (f64::from(code[0]), f64::from(code[1])) } else { gaussian.project(code) };
        named[labels.map_or(0, |labels| labels[i] as usize)].1.push(point);
    }
    let axis = |i: usize| if d == 2 { format!("z{i}") } else { format!("principal component {i}") };
    let plot = ScatterPlot { title: title.into(), x_label: axis(1), y_label: axis(2), groups: named };
    scatter_png(path, &plot).map_err(CoreError::io(path, "draw"))?;
    Ok(path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn the_gaussian_draws_what_it_was_fitted_to() {
        let mut rng = stream(1, "test", 0);
        // The third coordinate is the sum of the others: one axis is not used.
        let codes: Vec<f32> = (0..4000)
            .flat_map(|_| {
                let (a, b) = (2.0 * rng.normal() + 1.0, 0.5 * rng.normal());
                [a, b, a + b]
            })
            .collect();
        let gaussian = CodeGaussian::fit(&codes, 3);
        let drawn: Vec<f32> = (0..4000).flat_map(|_| gaussian.draw(&mut rng)).collect();
        let (mean, covariance) = mean_and_covariance(&drawn, 3);
        let want = [4.0, 0.0, 4.0, 0.0, 0.25, 0.25, 4.0, 0.25, 4.25];
        assert!((mean[0] - 1.0).abs() < 0.1 && mean[1].abs() < 0.05);
        assert!(covariance.iter().zip(want).all(|(got, want)| (got - want).abs() < 0.3), "{covariance:?}");
    }
}
