//! What is measured of a VAE: the ELBO with its parts, the importance-weighted bound, active units, scores of samples.

use std::f64::consts::LN_2;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::stream;

use super::config::Likelihood;
use super::network::Net;
use super::{PASS, Vae};
use crate::codec::numbers;
use crate::metrics::SampleScores;

/// Variance of its mean over the data from which a unit counts as active.
const ACTIVE: f64 = 0.01;

impl Vae {
    /// The negative ELBO of the test pictures with its parts, active units, and the importance-weighted bound.
    pub(super) fn likelihood(&self) -> Metrics {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let d = self.config.latent;
        let mut rng = stream(self.seed, "evaluation", 0);
        let (mut nll, mut divergences, mut means) = (0.0, vec![0.0f64; d], Vec::new());
        for start in (0..self.test.len()).step_by(PASS) {
            let (x, condition) = self.test_batch(start..(start + PASS).min(self.test.len()), &device);
            let posterior = net.posterior(x.clone(), condition.clone());
            let output = net.decoder.forward(posterior.sample(&mut rng, &device), condition);
            let losses = numbers(net.nll(output.flatten(1, 3), x.flatten(1, 3)));
            nll += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            for row in numbers(posterior.divergence()).chunks_exact(d) {
                divergences.iter_mut().zip(row).for_each(|(sum, kl)| *sum += f64::from(*kl));
            }
            means.extend(numbers(posterior.mean));
        }
        let n = self.test.len() as f64;
        let (nll, kl) = (nll / n, divergences.iter().sum::<f64>() / n);
        let mut metrics = Metrics::new();
        metrics.push("neg_elbo", nll + kl);
        metrics.push("reconstruction", nll);
        metrics.push("kl", kl);
        metrics.push("active_units", unit_variances(&means, d).iter().filter(|v| **v > ACTIVE).count() as f64);
        metrics.push("bits_per_dim", self.bits_per_dim(nll + kl));
        if let Some(log_std) = &net.log_std {
            metrics.push("pixel_std", f64::from(log_std.val().into_scalar::<f32>()).exp());
        }
        if self.config.iwae_samples > 0 {
            metrics.push(format!("neg_iwae_{}", self.config.iwae_samples), self.importance_weighted(&net, &device));
        }
        metrics
    }

    /// Nats a picture as bits a pixel; for Gaussian pixels, of the bytes that were dequantised.
    pub(super) fn bits_per_dim(&self, nats: f64) -> f64 {
        let per_pixel = nats / LN_2 / self.test.image_len() as f64;
        match self.config.likelihood {
            Likelihood::Bernoulli => per_pixel,
            Likelihood::Gaussian => per_pixel + 8.0,
        }
    }

    /// `-log 1/K sum_k p(x, z_k) / q(z_k | x)` (Burda et al. 2016, equation 8), the mean over test pictures.
    pub(super) fn importance_weighted(&self, net: &Net, device: &Device) -> f64 {
        let k = self.config.iwae_samples;
        let count = match self.config.iwae_images {
            0 => self.test.len(),
            images => images.min(self.test.len()),
        };
        let d = self.config.latent;
        let mut total = 0.0;
        for start in (0..count).step_by(PASS) {
            let (x, condition) = self.test_batch(start..(start + PASS).min(count), device);
            let n = x.dims()[0];
            let pixels = x.clone().flatten::<2>(1, 3);
            let posterior = net.posterior(x, condition.clone());
            let (mean, log_variance) = (numbers(posterior.mean), numbers(posterior.log_variance));
            let mut log_weights = vec![Vec::with_capacity(k); n];
            for sample in 0..k {
                let mut rng = stream(self.seed, "importance", (start * k + sample) as u64);
                let mut noise = vec![0.0f32; n * d];
                rng.fill_normal(&mut noise);
                let deviation = |i: usize| (0.5 * log_variance[i]).exp();
                let z: Vec<f32> = (0..n * d).map(|i| mean[i] + deviation(i) * noise[i]).collect();
                let codes = Tensor::from_data(TensorData::new(z.clone(), [n, d]), device);
                let output = net.decoder.forward(codes, condition.clone());
                let nll = numbers(net.nll(output.flatten(1, 3), pixels.clone()));
                for (i, weights) in log_weights.iter_mut().enumerate() {
                    // log p(z) - log q(z | x): the constants of both densities cancel.
                    let ratio = |j: usize| 0.5 * (noise[j].powi(2) + log_variance[j] - z[j].powi(2));
                    let prior: f64 = (i * d..(i + 1) * d).map(|j| f64::from(ratio(j))).sum();
                    weights.push(prior - f64::from(nll[i]));
                }
            }
            total -= log_weights.iter().map(|weights| log_mean_exp(weights)).sum::<f64>();
        }
        total / count as f64
    }

    /// Scores as many samples as there are test pictures, where [`SampleScores::serves`].
    pub(super) fn score_samples(&mut self) -> Option<Metrics> {
        if !self.scored {
            return None;
        }
        let (codes, labels) = self.draw(self.test.len(), self.seed, None, 1.0);
        let samples = self.decode(&codes, &labels);
        let test = &self.test;
        let scores = self.scores.get_or_insert_with(|| SampleScores::new(&test.floats(0..test.len())));
        let (mut metrics, classified) = scores.score(&samples);
        if self.classes > 0 {
            let hits = classified.digits().iter().zip(&labels).filter(|(a, b)| a == b).count();
            metrics.push("class_accuracy", hits as f64 / labels.len() as f64);
        }
        Some(metrics)
    }
}

/// The variance of each column of `[N, d]`.
pub(super) fn unit_variances(codes: &[f32], d: usize) -> Vec<f64> {
    let n = (codes.len() / d) as f64;
    let column = |unit: usize| codes.iter().skip(unit).step_by(d).map(|z| f64::from(*z));
    (0..d)
        .map(|unit| {
            let mean = column(unit).sum::<f64>() / n;
            column(unit).map(|z| (z - mean).powi(2)).sum::<f64>() / n
        })
        .collect()
}

pub(super) fn log_mean_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + (values.iter().map(|value| (value - largest).exp()).sum::<f64>() / values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_exponentials() {
        assert!((log_mean_exp(&[0.0, 3f64.ln()]) - 2f64.ln()).abs() < 1e-12);
        assert!((log_mean_exp(&[-1e4, -1e4]) + 1e4).abs() < 1e-9);
    }
}
