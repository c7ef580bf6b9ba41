//! Encoder, decoder and the distributions between and behind them.

use std::f64::consts::PI;

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use hotfire_nn::ops::{bernoulli_nll, squared_error};

use super::config::{Binarize, Likelihood};
use crate::codec::{Decoder, Encoder};

#[derive(Module, Debug)]
pub(super) struct Net {
    /// To means and log-variances, `[N, 2 latent]`.
    pub(super) encoder: Encoder,
    /// To logits or means of pixels.
    pub(super) decoder: Decoder,
    /// Logarithm of the standard deviation of Gaussian pixels.
    pub(super) log_std: Option<Param<Tensor<1>>>,
}

/// A batch's posterior: means and log-variances, `[N, latent]`.
pub(super) struct Posterior {
    pub(super) mean: Tensor<2>,
    pub(super) log_variance: Tensor<2>,
}

impl Net {
    pub(super) fn posterior(&self, x: Tensor<4>, condition: Option<Tensor<2>>) -> Posterior {
        let out = self.encoder.forward(x, condition);
        let [n, double] = out.dims();
        let d = double / 2;
        Posterior {
            mean: out.clone().slice([0..n, 0..d]),
            // Bounded, so that a wild start can't overflow the exponential.
            log_variance: out.slice([0..n, d..double]).clamp(-20.0, 10.0),
        }
    }

    /// Minus the log-likelihood of `x: [N, D]` in nats: `[N]`.
    pub(super) fn nll(&self, output: Tensor<2>, x: Tensor<2>) -> Tensor<1> {
        match &self.log_std {
            None => bernoulli_nll(output, x),
            Some(log_std) => {
                let pixels = x.dims()[1] as f64;
                let log_std = log_std.val();
                let precision = log_std.clone().mul_scalar(-2.0).exp();
                squared_error(output, x) * precision.mul_scalar(0.5)
                    + log_std.add_scalar(0.5 * (2.0 * PI).ln()).mul_scalar(pixels)
            }
        }
    }
}

impl Posterior {
    /// `KL(q || N(0, 1))` of each unit in nats: `[N, latent]`.
    pub(super) fn divergence(&self) -> Tensor<2> {
        let (mean, log_variance) = (self.mean.clone(), self.log_variance.clone());
        (mean.square() + log_variance.clone().exp() - log_variance).sub_scalar(1.0).mul_scalar(0.5)
    }

    pub(super) fn sample(&self, rng: &mut StreamRng, device: &Device) -> Tensor<2> {
        let [n, d] = self.mean.dims();
        let mut noise = vec![0.0; n * d];
        rng.fill_normal(&mut noise);
        let noise = Tensor::from_data(TensorData::new(noise, [n, d]), device);
        self.mean.clone() + self.log_variance.clone().mul_scalar(0.5).exp() * noise
    }
}

/// Turns grey levels from 0 to 1 into what the decoder's distribution is over.
pub(super) fn to_distribution(pixels: &mut [f32], likelihood: Likelihood, binarize: Binarize, rng: &mut StreamRng) {
    match (likelihood, binarize) {
        (Likelihood::Gaussian, _) => {
            pixels.iter_mut().for_each(|pixel| *pixel = (255.0 * *pixel + rng.uniform()) / 256.0);
        }
        (Likelihood::Bernoulli, Binarize::Stochastic) => {
            pixels.iter_mut().for_each(|pixel| *pixel = if rng.uniform() < *pixel { 1.0 } else { 0.0 });
        }
        (Likelihood::Bernoulli, Binarize::Threshold) => {
            pixels.iter_mut().for_each(|pixel| *pixel = if *pixel > 0.5 { 1.0 } else { 0.0 });
        }
        (Likelihood::Bernoulli, Binarize::None) => {}
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;
    use crate::codec::numbers;
    use crate::vae::measures::unit_variances;

    /// The divergence and its gradient follow the formula; a sample has the posterior's moments.
    #[test]
    fn the_posterior_is_the_gaussian_it_says() {
        let device = Device::flex().autodiff();
        let row = |value: f32| Tensor::<2>::full([20_000, 1], value, &device).require_grad();
        let posterior = Posterior { mean: row(0.5), log_variance: row(-1.0) };
        let variance = (-1.0f32).exp();
        let close = |found: f32, want: f32| assert!((found - want).abs() < 1e-6, "{found} against {want}");
        let divergence = posterior.divergence();
        close(numbers(divergence.clone())[0], 0.5 * (0.25 + variance + 1.0 - 1.0));
        let gradients = divergence.sum().backward();
        let slope = |of: &Tensor<2>| numbers(of.grad(&gradients).expect("both take part"))[0];
        close(slope(&posterior.mean), 0.5);
        close(slope(&posterior.log_variance), 0.5 * (variance - 1.0));
        let z = numbers(posterior.sample(&mut stream(1, "test", 0), &device));
        // Five standard errors of 20,000 draws.
        let mean = z.iter().map(|z| f64::from(*z)).sum::<f64>() / z.len() as f64;
        assert!((mean - 0.5).abs() < 5.0 * (f64::from(variance) / 20_000.0).sqrt(), "{mean}");
        assert!((unit_variances(&z, 1)[0] - f64::from(variance)).abs() < 0.02);
    }

    #[test]
    fn pictures_become_what_the_decoder_describes() {
        let mut rng = stream(1, "test", 0);
        let levels = [0.0f32, 127.0 / 255.0, 128.0 / 255.0, 1.0];
        let mut threshold = levels;
        to_distribution(&mut threshold, Likelihood::Bernoulli, Binarize::Threshold, &mut rng);
        assert_eq!(threshold, [0.0, 0.0, 1.0, 1.0]);
        let mut stochastic = vec![0.25f32; 20_000];
        to_distribution(&mut stochastic, Likelihood::Bernoulli, Binarize::Stochastic, &mut rng);
        let white = stochastic.iter().filter(|pixel| **pixel == 1.0).count();
        assert!(white.abs_diff(5_000) < 250 && stochastic.iter().all(|p| *p == 0.0 || *p == 1.0));
        let mut dequantised = vec![1.0f32; 1000];
        to_distribution(&mut dequantised, Likelihood::Gaussian, Binarize::None, &mut rng);
        assert!(dequantised.iter().all(|p| (255.0 / 256.0..=1.0).contains(p)));
    }
}
