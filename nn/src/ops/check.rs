//! Comparison of fused ops with stock ones, for tests.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::stream;

/// Checks that both variants of an op of three inputs agree in value and in the gradients of all inputs. The op gets
/// inputs of the given shapes, flattened.
pub(crate) fn agree<const D: usize>(
    context: &str,
    shapes: [Vec<usize>; 3],
    op: impl Fn([Tensor<1>; 3], bool) -> Tensor<D>,
) {
    let device = Device::flex().autodiff();
    let mut rng = stream(7, context, 0);
    let mut random = |len: usize| {
        let values: Vec<f32> = (0..len).map(|_| 0.5 * rng.normal()).collect();
        Tensor::<1>::from_data(TensorData::new(values, [len]), &device)
    };
    let inputs = shapes.map(|shape| random(shape.iter().product()).require_grad());
    let outputs = [op(inputs.clone(), true), op(inputs.clone(), false)];
    assert_eq!(outputs[0].dims(), outputs[1].dims(), "{context}: shape");
    let target = random(outputs[0].dims().iter().product()).reshape(outputs[0].shape());
    let gradients = outputs.clone().map(|y| (y * target.clone()).sum().backward());
    let close = |what: &str, [a, b]: [Vec<f32>; 2]| {
        assert_eq!(a.len(), b.len());
        let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() < 2e-5 * scale, "{context}: {what} at {i}: {a} against {b}");
        }
    };
    let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
    close("value", outputs.map(|y| values(y.flatten(0, D - 1))));
    for (i, input) in inputs.iter().enumerate() {
        let [a, b] = gradients.each_ref().map(|g| values(input.grad(g).unwrap()));
        close(&format!("gradient of input {i}"), [a, b]);
    }
}
