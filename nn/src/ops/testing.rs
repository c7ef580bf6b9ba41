//! What the tests of the fused ops share.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::{StreamRng, stream};

fn random(len: usize, rng: &mut StreamRng) -> Tensor<1> {
    let values: Vec<f32> = (0..len).map(|_| 0.5 * rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, [len]), &Device::flex().autodiff())
}

/// Checks that both forms of an op, the fused and the stock one, agree in value and in the gradients of all inputs under a
/// random weighting of the output. The op gets inputs of the given shapes, flattened and of standard deviation 0.5.
pub(crate) fn agree<const N: usize, const D: usize>(
    context: &str,
    shapes: [&[usize]; N],
    op: impl Fn([Tensor<1>; N], bool) -> Tensor<D>,
) {
    let mut rng = stream(7, context, 0);
    let inputs = shapes.map(|shape| random(shape.iter().product(), &mut rng).require_grad());
    let outputs = [true, false].map(|fused| op(inputs.clone(), fused));
    assert_eq!(outputs[0].dims(), outputs[1].dims(), "{context}: shape");
    let weights = random(outputs[0].dims().iter().product(), &mut rng).reshape(outputs[0].shape());
    let gradients = outputs.each_ref().map(|y| (y.clone() * weights.clone()).sum().backward());
    let close = |what: &str, [a, b]: [Tensor<1>; 2]| {
        let [a, b] = [a, b].map(|tensor| tensor.into_data().try_into_vec::<f32>().unwrap());
        assert_eq!(a.len(), b.len(), "{context}: {what}");
        let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() < 2e-5 * scale, "{context}: {what}[{i}]: {a} against {b}");
        }
    };
    close("value", outputs.map(|y| y.flatten(0, D - 1)));
    for (i, input) in inputs.iter().enumerate() {
        let of_input = gradients.each_ref().map(|g| input.grad(g).expect("every input has a gradient"));
        close(&format!("gradient of input {i}"), of_input);
    }
}
