//! Losses that are computed in host memory: numbers to tensors and back, and a gradient into a network.

use burn::prelude::*;
use burn::tensor::TensorData;

/// Rows of numbers as a tensor `[rows, _]`.
pub(crate) fn to_tensor(values: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
    let columns = values.len() / rows;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// A tensor's numbers; waits for the device.
pub(crate) fn to_vec(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("network outputs are 32-bit floats")
}

/// A sum whose derivative by `outputs` is `gradient`, so that it carries a loss's gradient into the network.
pub(crate) fn carry(outputs: Tensor<2>, gradient: Vec<f32>, device: &Device) -> Tensor<1> {
    let rows = outputs.dims()[0];
    (outputs * to_tensor(gradient, rows, device)).sum()
}
