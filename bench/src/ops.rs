//! The fused ops beside the stock Burn ops that compute the same, forward and backward on one batch: Transformers at
//! nanoGPT's CPU setting, dense networks of PPO and of
//! the autoencoder, layers of the VAE and the U-Net.

use burn::prelude::*;
use burn::tensor::activation::{gelu as stock_gelu, log_softmax, softmax as stock_softmax, softplus};
use burn::tensor::module::{
    conv_transpose2d as stock_conv_transpose2d, conv2d as stock_conv2d, embedding as stock_embedding, interpolate,
};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Distribution, TensorData};
use hotfire_nn::Activation;
use hotfire_nn::ops::{self, AttentionMask};

use crate::{Prepared, Workload};

const BATCH: usize = 12;
const LENGTH: usize = 64;
const WIDTH: usize = 128;
const HEADS: usize = 4;
const VOCABULARY: usize = 65;
/// Rows of a minibatch of PPO.
const ROWS: usize = 256;
const IMAGES: usize = 16;

/// Every op.
pub fn workloads() -> Vec<Workload> {
    let hidden = || random([BATCH, LENGTH, WIDTH]);
    let wide = || random([BATCH, LENGTH, 4 * WIDTH]);
    let ids = || (0..(BATCH * LENGTH) as i64).map(|i| i * 31 % VOCABULARY as i64).collect::<Vec<_>>();
    let image = |channels, side| move || random([IMAGES, channels, side, side]);
    [
        pair(
            "attention",
            move || [hidden(), hidden(), hidden()],
            |[q, k, v]| ops::attention(q, k, v, HEADS, AttentionMask::CAUSAL),
            stock_attention,
        ),
        pair(
            "layer_norm",
            move || (hidden(), random([WIDTH])),
            |(x, w)| ops::layer_norm(x, w, None, 1e-5),
            |(x, w)| {
                let (variance, mean) = x.clone().var_mean_bias(2);
                (x - mean) / variance.add_scalar(1e-5).sqrt() * w.unsqueeze()
            },
        ),
        pair("gelu", wide, ops::gelu, stock_gelu),
        pair("softmax", hidden, ops::softmax, |x| stock_softmax(x, 2)),
        pair(
            "linear",
            move || (hidden(), random([WIDTH, 4 * WIDTH])),
            |(x, w)| ops::linear(x, w, None),
            |(x, w)| x.matmul(w.unsqueeze()),
        ),
        pair(
            "embedding",
            move || {
                let data = TensorData::new(ids(), [BATCH, LENGTH]);
                (random([VOCABULARY, WIDTH]), Tensor::<2, Int>::from_data(data, &Device::flex()))
            },
            |(table, ids)| ops::embedding(table, ids),
            |(table, ids)| stock_embedding(table, ids),
        ),
        pair(
            "cross_entropy",
            move || (random([BATCH * LENGTH, VOCABULARY]), ids()),
            |(logits, ids)| ops::cross_entropy(logits, &ids),
            |(logits, ids)| {
                let column = TensorData::new(ids, [BATCH * LENGTH, 1]);
                let column = Tensor::<2, Int>::from_data(column, &Device::flex());
                log_softmax(logits, 1).gather(1, column).mean().neg()
            },
        ),
        pair("mlp_tanh", dense_network, ops_mlp, stock_mlp),
        pair(
            "bernoulli_nll",
            || [random([128, 784]), random([128, 784]).detach()],
            |[logits, x]| ops::bernoulli_nll(logits, x),
            |[logits, x]| (softplus(logits.clone(), 1.0) - logits * x).sum_dim(1).squeeze_dim(1),
        ),
        pair("linear_relu", dense_layer, |(x, w, b)| ops::linear_act(x, w, b, Activation::Relu), stock_dense_layer),
        conv2d("conv2d 32 to 32 at 28", image(32, 28), 32, 1),
        conv2d("conv2d 64 to 64 at 7", image(64, 7), 64, 1),
        conv2d("conv2d 32 to 64 at 28, stride 2", image(32, 28), 64, 2),
        pair(
            "conv_transpose2d",
            move || (image(32, 14)(), random([32, 32, 4, 4]), random([32])),
            |(x, w, b)| ops::conv_transpose2d(x, w, b, 2, 1, Activation::Identity),
            |(x, w, b)| {
                let options = ConvTransposeOptions::new([2, 2], [1, 1], [0, 0], [1, 1], 1);
                stock_conv_transpose2d(x, w, Some(b), options)
            },
        ),
        pair(
            "group_norm_silu",
            move || (image(32, 28)(), random([32]), random([32])),
            |(x, scale, shift)| ops::group_norm(x, scale, shift, 8, 1e-5, Activation::Silu),
            stock_group_norm_silu,
        ),
        pair("spatial_attention", image(192, 7), |qkv| ops::spatial_attention(qkv, 1), stock_spatial_attention),
        pair("upsample_nearest", image(64, 14), ops::upsample_nearest, |x| {
            interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Normal numbers to differentiate by.
fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex().autodiff()).require_grad()
}

/// The op of both kinds.
fn pair<I: Clone + Send + 'static, const D: usize>(
    name: &'static str,
    inputs: impl Fn() -> I + Clone + 'static,
    fused: impl Fn(I) -> Tensor<D> + Copy + Send + 'static,
    stock: impl Fn(I) -> Tensor<D> + Copy + Send + 'static,
) -> [Workload; 2] {
    let again = inputs.clone();
    [
        Workload::new("op", format!("{name}, fused"), "calls", move || Ok(forward_backward(inputs(), fused))),
        Workload::new("op", format!("{name}, stock"), "calls", move || Ok(forward_backward(again(), stock))),
    ]
}

fn forward_backward<I: Clone + Send + 'static, const D: usize>(
    inputs: I,
    op: impl Fn(I) -> Tensor<D> + Send + 'static,
) -> Prepared {
    Prepared::new(1, move || _ = op(inputs.clone()).sum().backward())
}

/// A 3x3 convolution and ReLU.
fn conv2d(
    name: &'static str,
    images: impl Fn() -> Tensor<4> + Clone + 'static,
    outputs: usize,
    stride: usize,
) -> [Workload; 2] {
    let inputs = move || {
        let x = images();
        let weight = random([outputs, x.dims()[1], 3, 3]);
        (x, weight, random([outputs]))
    };
    pair(
        name,
        inputs,
        move |(x, w, b)| ops::conv2d(x, w, b, stride, 1, Activation::Relu),
        move |(x, w, b)| stock_conv2d(x, w, Some(b), ConvOptions::new([stride; 2], [1; 2], [1; 2], 1)).clamp_min(0.0),
    )
}

fn dense_layer() -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    (random([128, 784]), random([784, 512]), random([512]))
}

fn stock_dense_layer((x, w, b): (Tensor<2>, Tensor<2>, Tensor<1>)) -> Tensor<2> {
    (x.matmul(w) + b.unsqueeze()).clamp_min(0.0)
}

fn stock_spatial_attention(qkv: Tensor<4>) -> Tensor<4> {
    let [n, channels, h, w] = qkv.dims();
    let c = channels / 3;
    let part = |i: usize| qkv.clone().slice([0..n, i * c..(i + 1) * c]).reshape([n, 1, c, h * w]);
    let scores = part(0).swap_dims(2, 3).matmul(part(1)).mul_scalar(1.0 / (c as f64).sqrt());
    part(2).matmul(stock_softmax(scores, 3).swap_dims(2, 3)).reshape([n, c, h, w])
}

fn stock_attention([q, k, v]: [Tensor<3>; 3]) -> Tensor<3> {
    let split = |t: Tensor<3>| t.reshape([BATCH, LENGTH, HEADS, WIDTH / HEADS]).swap_dims(1, 2);
    let scores = split(q).matmul(split(k).swap_dims(2, 3)).mul_scalar(1.0 / ((WIDTH / HEADS) as f64).sqrt());
    let later = Tensor::<2, Bool>::tril_mask([LENGTH, LENGTH], 0, &scores.device());
    let weights = stock_softmax(scores.mask_fill(later.unsqueeze(), -1e30), 3);
    weights.matmul(split(v)).swap_dims(1, 2).reshape([BATCH, LENGTH, WIDTH])
}

type DenseNetwork = (Tensor<2>, [(Tensor<2>, Tensor<1>, Activation); 3]);

/// A batch and the layers 4-64-64-2.
fn dense_network() -> DenseNetwork {
    let layer = |inputs, outputs, activation| (random([inputs, outputs]), random([outputs]), activation);
    let layers = [layer(4, 64, Activation::Tanh), layer(64, 64, Activation::Tanh), layer(64, 2, Activation::Identity)];
    (random([ROWS, 4]), layers)
}

fn ops_mlp((x, layers): DenseNetwork) -> Tensor<2> {
    ops::mlp(x, layers.into())
}

fn stock_mlp((x, layers): DenseNetwork) -> Tensor<2> {
    layers.into_iter().fold(x, |x, (weight, bias, activation)| {
        let z = x.matmul(weight) + bias.unsqueeze();
        if activation == Activation::Tanh { z.tanh() } else { z }
    })
}

fn stock_group_norm_silu((x, scale, shift): (Tensor<4>, Tensor<1>, Tensor<1>)) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x = x.reshape([n, 8, c / 8 * h * w]);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / variance.add_scalar(1e-5).sqrt()).reshape([n, c, h, w]);
    burn::tensor::activation::silu(normal * scale.reshape([1, c, 1, 1]) + shift.reshape([1, c, 1, 1]))
}
