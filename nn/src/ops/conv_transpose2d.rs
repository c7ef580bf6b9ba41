//! Two-dimensional transposed convolution, with an activation, as one op: the gradient of a convolution with respect to
//! its input, as a layer.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::module::conv_transpose2d as burn_conv_transpose2d;
use burn::tensor::ops::ConvTransposeOptions;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::conv2d::{Kept, sum_over_parts};
use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Activation, Read, add_row_sums, matmul};
use super::mlp::stock_activation;
use super::window::{Window, join_images, split_images};

/// `activation(x *^T weight + bias)`: `x: [N, C, H, W]`, `weight: [C, O, KH, KW]`, `bias: [O]`; the result is
/// `[N, O, H', W']` with `H' = (H - 1) stride - 2 padding + KH`, likewise `W'`.
///
/// # Panics
/// If the shapes don't fit, or `stride` is zero.
pub fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Tensor<4> {
    let [_, channels, h, w] = x.dims();
    let [weight_channels, outputs, kh, kw] = weight.dims();
    assert_eq!(channels, weight_channels, "the kernel takes {weight_channels} channels, the image has {channels}");
    assert_eq!(bias.dims(), [outputs], "one bias for each of {outputs} output channels");
    if !on_host(&x) {
        return stock(x, weight, bias, stride, padding, activation);
    }
    let size = |size: usize, kernel: usize| {
        let full = size.saturating_sub(1) * stride + kernel;
        assert!(full > 2 * padding, "a padding of {padding} leaves nothing of {full} pixels");
        full - 2 * padding
    };
    let window =
        Window { channels: outputs, height: size(h, kh), width: size(w, kw), kernel: [kh, kw], stride, padding };
    assert_eq!(window.out(), [h, w], "the stride is at least 1");
    host_op::apply([Parent::new(x), Parent::new(weight), Parent::new(bias)], |values| {
        ConvTranspose2d::forward(values.clone(), window, activation)
    })
}

fn stock(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Tensor<4> {
    let options = ConvTransposeOptions::new([stride; 2], [padding; 2], [0, 0], [1, 1], 1);
    stock_activation(burn_conv_transpose2d(x, weight, Some(bias), options), activation)
}

/// The windows lie on the output image; the input has one pixel a window.
#[derive(Clone, Debug)]
struct ConvTranspose2d {
    values: [FlexTensor; 3],
    window: Window,
    activation: Activation,
    kept: Kept,
}

/// Buffers of one thread: `[taps, columns]` and `[channels, columns]` twice.
#[derive(Default)]
struct Scratch {
    windows: Vec<f32>,
    x: Vec<f32>,
    gradient: Vec<f32>,
}

/// `[images, channels, positions]` as `[channels, images * positions]`.
fn joined<'a>(x: &'a [f32], channels: usize, positions: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    if x.len() == channels * positions {
        return x;
    }
    scratch.resize(x.len(), 0.0);
    join_images(x, channels, positions, scratch);
    scratch
}

impl ConvTranspose2d {
    fn channels(&self) -> usize {
        self.values[0].layout().shape()[1]
    }

    fn forward(values: [FlexTensor; 3], window: Window, activation: Activation) -> (FlexTensor, Self) {
        let [x, weight, bias] = values.each_ref().map(FlexTensor::storage::<f32>);
        let (c, k, p) = (values[0].layout().shape()[1], window.taps(), window.positions());
        let (batch, pixels) = (x.len() / (c * p), window.height * window.width);
        let mut y = vec![0.0f32; batch * window.image_len()];
        let groups = y.par_chunks_mut(window.group() * window.image_len()).zip(x.par_chunks(window.group() * c * p));
        groups.for_each_init(Scratch::default, |scratch, (y, x)| {
            let columns = x.len() / c;
            let x = joined(x, c, p, &mut scratch.x);
            scratch.windows.resize(k * columns, 0.0);
            matmul(k, columns, c, &mut scratch.windows, (weight, Read::Transposed), (x, Read::Plain), false);
            for (i, image) in y.chunks_exact_mut(window.image_len()).enumerate() {
                image.chunks_exact_mut(pixels).zip(bias).for_each(|(plane, b)| plane.fill(*b));
                window.scatter(&scratch.windows, columns, i * p, image);
            }
        });
        let shape = [batch, window.channels, window.height, window.width];
        let (output, kept) = Kept::activated(y, shape, activation);
        (output, Self { values, window, activation, kept })
    }
}

impl HostOp for ConvTranspose2d {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = self.kept.gradient(&gradient, self.activation);
        let (window, g) = (self.window, gradient.storage::<f32>());
        let [x, weight, _] = self.values.each_ref().map(FlexTensor::storage::<f32>);
        let (c, k, p) = (self.channels(), window.taps(), window.positions());
        let (batch, size) = (x.len() / (c * p), window.group());
        let mut dx = vec![0.0f32; if wanted[0] { x.len() } else { 0 }];

        let (dw, db) = sum_over_parts(batch, size, &mut dx, [c * k, window.channels], |images, dx, [dw, db]| {
            let mut scratch = Scratch::default();
            let x = x[images.start * c * p..images.end * c * p].chunks(size * c * p);
            let g =
                g[images.start * window.image_len()..images.end * window.image_len()].chunks(size * window.image_len());
            for (i, (x, g)) in x.zip(g).enumerate() {
                let columns = x.len() / c;
                scratch.windows.resize(k * columns, 0.0);
                for (j, image) in g.chunks_exact(window.image_len()).enumerate() {
                    add_row_sums(image, db);
                    window.gather(image, &mut scratch.windows, columns, j * p);
                }
                let windows = (&scratch.windows[..], Read::Plain);
                if wanted[1] {
                    let x = joined(x, c, p, &mut scratch.x);
                    matmul(c, k, columns, dw, (x, Read::Plain), (windows.0, Read::Transposed), true);
                }
                if !dx.is_empty() {
                    let dx = &mut dx[i * size * c * p..][..x.len()];
                    if columns == p {
                        matmul(c, columns, k, dx, (weight, Read::Plain), windows, false);
                    } else {
                        scratch.gradient.resize(c * columns, 0.0);
                        matmul(c, columns, k, &mut scratch.gradient, (weight, Read::Plain), windows, false);
                        split_images(&scratch.gradient, c, p, dx);
                    }
                }
            }
        });
        let shaped = |values, of: usize| {
            FlexTensor::from_data(TensorData::new(values, self.values[of].layout().shape().clone()))
        };
        vec![wanted[0].then(|| shaped(dx, 0)), wanted[1].then(|| shaped(dw, 1)), wanted[2].then(|| shaped(db, 2))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        for (batch, x, weight, stride, padding, activation) in [
            (3, [64, 7, 7], [32, 4, 4], 2, 1, Activation::Relu),
            (9, [64, 7, 7], [5, 4, 4], 2, 1, Activation::Identity),
            (2, [32, 14, 14], [1, 4, 4], 2, 1, Activation::Identity),
            (2, [5, 6, 9], [3, 3, 2], 3, 1, Activation::Silu),
            (2, [4, 16, 17], [6, 3, 3], 1, 1, Activation::Tanh),
        ] {
            let [c, h, w] = x;
            let [o, kh, kw] = weight;
            let (x_shape, weight_shape) = ([batch, c, h, w], [c, o, kh, kw]);
            agree(&format!("{x:?} {weight:?}"), [&x_shape, &weight_shape, &[o]], |[x, weight, bias], fused| {
                let op = if fused { conv_transpose2d } else { stock };
                op(x.reshape(x_shape), weight.reshape(weight_shape), bias, stride, padding, activation)
            });
        }
    }
}
