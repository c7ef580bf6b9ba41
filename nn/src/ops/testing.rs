//! What the tests of the fused ops share.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::stream;

/// Standard normal numbers on the autodiff device, tracked.
pub(crate) fn random(shape: [usize; 3], seed: u64) -> Tensor<3> {
    let mut values = vec![0.0; shape.iter().product()];
    stream(seed, "test", 0).fill_normal(&mut values);
    Tensor::<3>::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
}

/// Compares a fused op with its stock form, in value and in the gradients of a random weighting of the output.
pub(crate) fn agree<const N: usize>(
    context: &str,
    inputs: [Tensor<3>; N],
    fused: impl FnOnce([Tensor<3>; N]) -> Tensor<3>,
    stock: impl FnOnce([Tensor<3>; N]) -> Tensor<3>,
) {
    let values = |tensor: Tensor<3>| tensor.into_data().try_into_vec::<f32>().unwrap();
    let close = |a: Vec<f32>, b: Vec<f32>, what: &str| {
        assert_eq!(a.len(), b.len(), "{context}: {what}");
        let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() < 2e-5 * scale, "{context}: {what}[{i}]: {a} against {b}");
        }
    };
    let fused = fused(inputs.clone());
    let stock = stock(inputs.clone());
    assert_eq!(fused.dims(), stock.dims(), "{context}");
    let weights = random(stock.dims(), 77).inner();
    let weights = Tensor::from_inner(weights);
    let fused_gradients = (fused.clone() * weights.clone()).sum().backward();
    let stock_gradients = (stock.clone() * weights).sum().backward();
    close(values(fused), values(stock), "value");
    for (i, input) in inputs.iter().enumerate() {
        let gradient = |gradients| values(input.grad(gradients).expect("every input has a gradient"));
        close(gradient(&fused_gradients), gradient(&stock_gradients), &format!("gradient of input {i}"));
    }
}
