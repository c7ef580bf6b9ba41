//! A linear map, with or without a bias.

use burn::prelude::*;

use super::host_op::on_host;
use super::kernel::Activation;
use super::mlp::linear_act;

/// `x weight + bias` for `x: [..., K]`, `weight: [K, M]`, `bias: [M]`; the result is `[..., M]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    let [inputs, outputs] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    shape[D - 1] = outputs;
    let x: Tensor<2> = x.reshape([rows, inputs]);
    let y = match bias {
        Some(bias) => linear_act(x, weight, bias, Activation::Identity),
        // The fused op adds to a row of zeros as fast as it stores.
        None if on_host(&x) => {
            let zeros = Tensor::zeros([outputs], &weight.device());
            linear_act(x, weight, zeros, Activation::Identity)
        }
        None => x.matmul(weight),
    };
    y.reshape(shape)
}
