//! The fused ops of networks of pictures, forward and backward, beside the stock Burn ops. Sizes are those of the base-32
//! U-Net and of the convolutional VAE. `transformer_ops` has those of Transformers.

use burn::prelude::*;
use burn::tensor::activation::{log_softmax, silu, softmax as stock_softmax, softplus};
use burn::tensor::module::{conv_transpose2d as burn_conv_transpose2d, conv2d as burn_conv2d, interpolate};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Distribution, TensorData};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_nn::ops::{self, Activation};

const BATCH: usize = 32;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex().autodiff()).require_grad()
}

fn stock_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize) -> Tensor<4> {
    burn_conv2d(x, weight, Some(bias), ConvOptions::new([stride; 2], [1; 2], [1, 1], 1))
}

fn stock_group_norm_silu(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, groups: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x = x.reshape([n, groups, c / groups * h * w]);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / variance.add_scalar(1e-5).sqrt()).reshape([n, c, h, w]);
    silu(normal * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1]))
}

fn stock_spatial_attention(qkv: Tensor<4>) -> Tensor<4> {
    let [n, channels, h, w] = qkv.dims();
    let c = channels / 3;
    let part = |i: usize| qkv.clone().slice([0..n, i * c..(i + 1) * c]).reshape([n, 1, c, h * w]);
    let scores = part(0).swap_dims(2, 3).matmul(part(1)).mul_scalar(1.0 / (c as f64).sqrt());
    part(2).matmul(stock_softmax(scores, 3).swap_dims(2, 3)).reshape([n, c, h, w])
}

fn stock_cross_entropy(logits: Tensor<2>, targets: &[i64]) -> Tensor<1> {
    let column = TensorData::new(targets.to_vec(), [targets.len(), 1]);
    let column = Tensor::<2, Int>::from_data(column, &logits.device());
    log_softmax(logits, 1).gather(1, column).mean().neg()
}

fn benches(c: &mut Criterion) {
    assert!(hotfire_core::plot::register_fonts(), "the built-in font is not readable");
    let mut pair = |name: &str, fused: &dyn Fn() -> Tensor<1>, stock: &dyn Fn() -> Tensor<1>| {
        c.bench_function(&format!("{name}/fused"), |b| b.iter(|| fused().backward()));
        c.bench_function(&format!("{name}/stock"), |b| b.iter(|| stock().backward()));
    };
    for (channels, outputs, side, stride) in [(32, 32, 28, 1), (64, 64, 14, 1), (64, 64, 7, 1), (32, 64, 14, 2)] {
        let (x, bias) = (random([BATCH, channels, side, side]), random([outputs]));
        let weight = random([outputs, channels, 3, 3]);
        pair(
            &format!("conv2d {channels} to {outputs} at {side}, stride {stride}"),
            &|| ops::conv2d(x.clone(), weight.clone(), bias.clone(), stride, 1, Activation::Identity).sum(),
            &|| stock_conv2d(x.clone(), weight.clone(), bias.clone(), stride).sum(),
        );
    }
    let (x, weight, bias) = (random([BATCH, 64, 7, 7]), random([64, 32, 4, 4]), random([32]));
    let options = || ConvTransposeOptions::new([2; 2], [1; 2], [0; 2], [1; 2], 1);
    pair(
        "conv_transpose2d 64 to 32 at 7",
        &|| ops::conv_transpose2d(x.clone(), weight.clone(), bias.clone(), 2, 1, Activation::Identity).sum(),
        &|| burn_conv_transpose2d(x.clone(), weight.clone(), Some(bias.clone()), options()).sum(),
    );
    let (x, gamma, beta) = (random([BATCH, 32, 28, 28]), random([32]), random([32]));
    pair(
        "group_norm and silu, 32 at 28",
        &|| ops::group_norm(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, Activation::Silu).sum(),
        &|| stock_group_norm_silu(x.clone(), gamma.clone(), beta.clone(), 8).sum(),
    );
    let qkv = random([BATCH, 192, 7, 7]);
    pair("spatial_attention 64 at 7", &|| ops::spatial_attention(qkv.clone(), 1).sum(), &|| {
        stock_spatial_attention(qkv.clone()).sum()
    });
    let x = random([BATCH, 64, 14, 14]);
    pair("upsample_nearest 64 at 14", &|| ops::upsample_nearest(x.clone()).sum(), &|| {
        let options = InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
        interpolate(x.clone(), options).sum()
    });
    let (x, weight, bias) = (random([128, 784]), random([784, 512]), random([512]));
    pair(
        "linear and ReLU 784 to 512",
        &|| ops::linear_act(x.clone(), weight.clone(), bias.clone(), Activation::Relu).sum(),
        &|| (x.clone().matmul(weight.clone()) + bias.clone().unsqueeze()).clamp_min(0.0).sum(),
    );
    let (logits, target) = (random([128, 784]), random([128, 784]).detach().clamp(0.0, 1.0));
    pair("bernoulli_nll 784", &|| ops::bernoulli_nll(logits.clone(), target.clone()).sum(), &|| {
        (softplus(logits.clone(), 1.0) - logits.clone() * target.clone()).sum()
    });
    let (scores, targets) = (random([768, 65]), (0..768).map(|i| i % 65).collect::<Vec<i64>>());
    pair("cross_entropy 65", &|| ops::cross_entropy(scores.clone(), &targets), &|| {
        stock_cross_entropy(scores.clone(), &targets)
    });
    let scores = random([12 * 4 * 64, 64]);
    pair("softmax 64", &|| ops::softmax(scores.clone()).powi_scalar(2).sum(), &|| {
        stock_softmax(scores.clone(), 1).powi_scalar(2).sum()
    });
}

criterion_group! {
    name = nn_ops;
    config = Criterion::default().sample_size(20);
    targets = benches
}
criterion_main!(nn_ops);
