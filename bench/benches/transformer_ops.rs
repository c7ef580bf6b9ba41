//! The fused Transformer ops, forward and backward, at the sizes of nanoGPT's CPU setting, beside the stock Burn ops.

use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::{gelu as stock_gelu, softmax as stock_softmax};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_nn::ops::{self, AttentionMask};

const BATCH: usize = 12;
const LENGTH: usize = 64;
const WIDTH: usize = 128;
const HEADS: usize = 4;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex().autodiff()).require_grad()
}

fn stock_attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
    let split = |t: Tensor<3>| t.reshape([BATCH, LENGTH, HEADS, WIDTH / HEADS]).swap_dims(1, 2);
    let scores = split(q).matmul(split(k).swap_dims(2, 3)).mul_scalar(1.0 / ((WIDTH / HEADS) as f64).sqrt());
    let later = Tensor::<2, Bool>::tril_mask([LENGTH, LENGTH], 0, &scores.device());
    let weights = stock_softmax(scores.mask_fill(later.unsqueeze(), -1e30), 3);
    weights.matmul(split(v)).swap_dims(1, 2).reshape([BATCH, LENGTH, WIDTH])
}

fn stock_layer_norm(x: Tensor<3>, weight: Tensor<1>) -> Tensor<3> {
    let (variance, mean) = x.clone().var_mean_bias(2);
    (x - mean) / variance.add_scalar(1e-5).sqrt() * weight.unsqueeze()
}

fn benches(c: &mut Criterion) {
    let mut run = |name: &str, op: &dyn Fn() -> Tensor<3>| {
        c.bench_function(name, |b| b.iter(|| op().sum().backward()));
    };
    let tensors = [0; 3].map(|_| random([BATCH, LENGTH, WIDTH]));
    let [q, k, v] = tensors.clone();
    run("attention/fused", &|| ops::attention(q.clone(), k.clone(), v.clone(), HEADS, AttentionMask::CAUSAL));
    run("attention/stock", &|| stock_attention(q.clone(), k.clone(), v.clone()));
    let weight = random([WIDTH]);
    run("layer_norm/fused", &|| ops::layer_norm(q.clone(), weight.clone(), None, 1e-5));
    run("layer_norm/stock", &|| stock_layer_norm(q.clone(), weight.clone()));
    let hidden = random([BATCH, LENGTH, 4 * WIDTH]);
    run("gelu/fused", &|| ops::gelu(hidden.clone()));
    run("gelu/stock", &|| stock_gelu(hidden.clone()));
    let matrix = random([WIDTH, 4 * WIDTH]);
    run("linear/fused", &|| ops::linear(q.clone(), matrix.clone(), None));
    run("linear/stock", &|| q.clone().matmul(matrix.clone().unsqueeze()));
}

criterion_group!(transformer_ops, benches);
criterion_main!(transformer_ops);
