//! Two-dimensional convolution (cross-correlation), with an activation, as one op.
//!
//! On the CPU, the batch split over the cores: kernels of 3x3 pixels with stride 1 run straight over the image
//! ([`Direct`]); for all others the windows of a few images are laid out as a matrix and multiplied by the weights.

use std::ops::Range;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::direct::{self, Direct};
use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Activation, Read, activate, activation_gradient, add_row_sums, matmul};
use super::mlp::stock_activation;
use super::window::{Window, images_per_part, join_images, split_images};

/// `activation(x * weight + bias)`: `x: [N, C, H, W]`, `weight: [O, C, KH, KW]`, `bias: [O]`; the result is
/// `[N, O, H', W']` with `H' = (H + 2 padding - KH) / stride + 1`, likewise `W'`.
///
/// # Panics
/// If the shapes don't fit, or `stride` is zero.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Tensor<4> {
    let [_, channels, height, width] = x.dims();
    let [outputs, weight_channels, kh, kw] = weight.dims();
    assert_eq!(channels, weight_channels, "the kernel takes {weight_channels} channels, the image has {channels}");
    assert_eq!(bias.dims(), [outputs], "one bias for each of {outputs} output channels");
    if !on_host(&x) {
        return stock(x, weight, bias, stride, padding, activation);
    }
    let window = Window { channels, height, width, kernel: [kh, kw], stride, padding };
    host_op::apply([Parent::new(x), Parent::new(weight), Parent::new(bias)], |values| {
        Conv2d::forward(values.clone(), window, activation)
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
    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
    stock_activation(burn_conv2d(x, weight, Some(bias), options), activation)
}

/// Input, weight and bias, and what the activation's derivative is computed from.
#[derive(Clone, Debug)]
struct Conv2d {
    values: [FlexTensor; 3],
    window: Window,
    activation: Activation,
    kept: Kept,
}

/// What an activation's derivative is computed from: nothing, the output or the pre-activation.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Nothing,
    Output(FlexTensor),
    PreActivation(Arc<Vec<f32>>),
}

impl Kept {
    pub fn values(&self) -> Option<&[f32]> {
        match self {
            Self::Nothing => None,
            Self::Output(output) => Some(output.storage()),
            Self::PreActivation(z) => Some(z),
        }
    }

    /// Applies the activation to `y` and makes a tensor of it.
    pub fn activated(mut y: Vec<f32>, shape: [usize; 4], activation: Activation) -> (FlexTensor, Self) {
        let z = (!activation.derivative_from_output()).then(|| Arc::new(y.clone()));
        if activation != Activation::Identity {
            y.par_chunks_mut(1 << 14).for_each(|y| activate(y, activation));
        }
        let output = host_op::tensor(y, shape);
        let kept = match z {
            Some(z) => Self::PreActivation(z),
            None if activation == Activation::Identity => Self::Nothing,
            None => Self::Output(output.clone()),
        };
        (output, kept)
    }

    /// The gradient of the pre-activation from the gradient of the output.
    pub fn gradient(&self, gradient: &FlexTensor, activation: Activation) -> FlexTensor {
        let gradient = host_op::contiguous(gradient);
        let Some(kept) = self.values() else { return gradient };
        let mut g = gradient.storage::<f32>().to_vec();
        g.par_chunks_mut(1 << 14)
            .zip(kept.par_chunks(1 << 14))
            .for_each(|(g, kept)| activation_gradient(g, kept, activation));
        FlexTensor::from_data(TensorData::new(g, gradient.layout().shape().clone()))
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// `[taps, columns]`
    windows: Vec<f32>,
    /// `[outputs, columns]`
    products: Vec<f32>,
    /// `[taps, columns]`
    gradient: Vec<f32>,
}

/// The windows of `images` images as a matrix `[taps, images * positions]`.
fn gathered<'a>(window: &Window, x: &'a [f32], images: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    if images == 1 && window.is_pointwise() {
        return x;
    }
    let columns = images * window.positions();
    scratch.resize(window.taps() * columns, 0.0);
    for (i, image) in x.chunks_exact(window.image_len()).enumerate() {
        window.gather(image, scratch, columns, i * window.positions());
    }
    scratch
}

impl Conv2d {
    fn forward(values: [FlexTensor; 3], window: Window, activation: Activation) -> (FlexTensor, Self) {
        let [x, weight, bias] = values.each_ref().map(FlexTensor::storage::<f32>);
        let (o, k, p) = (bias.len(), window.taps(), window.positions());
        let batch = x.len() / window.image_len();
        let mut y = vec![0.0f32; batch * o * p];
        if let Some(direct) = direct(&window) {
            let packed = direct.pack(weight, o);
            y.par_chunks_mut(direct.group() * o * p)
                .zip(x.par_chunks(direct.group() * window.image_len()))
                .for_each_init(direct::Scratch::default, |scratch, (y, x)| {
                    direct.convolve(x, &packed, Some(bias), o, y, scratch);
                });
            let (output, kept) = Kept::activated(y, [batch, o, window.height, window.width], activation);
            return (output, Self { values, window, activation, kept });
        }
        let groups = y.par_chunks_mut(window.group() * o * p).zip(x.par_chunks(window.group() * window.image_len()));
        groups.for_each_init(Scratch::default, |scratch, (y, x)| {
            let images = y.len() / (o * p);
            let windows = gathered(&window, x, images, &mut scratch.windows);
            if images == 1 {
                y.chunks_exact_mut(p).zip(bias).for_each(|(row, b)| row.fill(*b));
                matmul(o, p, k, y, (weight, Read::Plain), (windows, Read::Plain), true);
            } else {
                let columns = images * p;
                scratch.products.resize(o * columns, 0.0);
                scratch.products.chunks_exact_mut(columns).zip(bias).for_each(|(row, b)| row.fill(*b));
                matmul(o, columns, k, &mut scratch.products, (weight, Read::Plain), (windows, Read::Plain), true);
                split_images(&scratch.products, o, p, y);
            }
        });
        let [out_h, out_w] = window.out();
        let (output, kept) = Kept::activated(y, [batch, o, out_h, out_w], activation);
        (output, Self { values, window, activation, kept })
    }
}

/// The faster way for windows that it serves.
fn direct(window: &Window) -> Option<Direct> {
    let serves = window.kernel == [3, 3] && window.stride == 1 && window.padding == 1;
    if serves { Direct::new(window.height, window.width) } else { None }
}

impl Conv2d {
    /// Gradients of input, weight and bias from the gradient of the pre-activation `g`.
    fn direct_gradients(&self, direct: Direct, g: &[f32], wanted: &[bool]) -> [Vec<f32>; 3] {
        let [x, weight, bias] = self.values.each_ref().map(FlexTensor::storage::<f32>);
        let (o, image, p) = (bias.len(), self.window.image_len(), self.window.positions());
        let packed = if wanted[0] { direct.pack_transposed(weight, o) } else { Vec::new() };
        let mut dx = vec![0.0f32; if wanted[0] { x.len() } else { 0 }];
        let channels = self.window.channels;
        let lengths = [if wanted[1] { channels * 9 * direct.gradient_width(o) } else { 0 }, o];
        let size = direct.group();
        let (dw, db) = sum_over_parts(x.len() / image, size, &mut dx, lengths, |images, dx, [dw, db]| {
            let mut scratch = direct::Scratch::default();
            let x = x[images.start * image..images.end * image].chunks(size * image);
            let g = g[images.start * o * p..images.end * o * p].chunks(size * o * p);
            for (i, (x, g)) in x.zip(g).enumerate() {
                g.chunks_exact(o * p).for_each(|g| add_row_sums(g, db));
                if wanted[1] {
                    direct.add_weight_gradient(x, g, o, dw, &mut scratch);
                }
                if wanted[0] {
                    let dx = &mut dx[i * size * image..][..x.len()];
                    direct.convolve(g, &packed, None, channels, dx, &mut scratch);
                }
            }
        });
        let dw = if wanted[1] { direct.unpack_gradient(&dw, o) } else { dw };
        [dx, dw, db]
    }

    fn shaped(&self, gradients: [Vec<f32>; 3], wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let shaped = |(i, values): (usize, Vec<f32>)| {
            let shape = self.values[i].layout().shape().clone();
            wanted[i].then(|| FlexTensor::from_data(TensorData::new(values, shape)))
        };
        gradients.into_iter().enumerate().map(shaped).collect()
    }
}

impl HostOp for Conv2d {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = self.kept.gradient(&gradient, self.activation);
        let (window, g) = (self.window, gradient.storage::<f32>());
        if let Some(direct) = direct(&window) {
            return self.shaped(self.direct_gradients(direct, g, wanted), wanted);
        }
        let [x, weight, bias] = self.values.each_ref().map(FlexTensor::storage::<f32>);
        let (o, k, p) = (bias.len(), window.taps(), window.positions());
        let batch = x.len() / window.image_len();
        let mut dx = vec![0.0f32; if wanted[0] { x.len() } else { 0 }];

        let group = |scratch: &mut Scratch, x: &[f32], g: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]| {
            let images = g.len() / (o * p);
            let columns = images * p;
            let g = if images == 1 {
                g
            } else {
                scratch.products.resize(o * columns, 0.0);
                join_images(g, o, p, &mut scratch.products);
                &scratch.products
            };
            add_row_sums(g, db);
            if wanted[1] {
                let windows = gathered(&window, x, images, &mut scratch.windows);
                matmul(o, k, columns, dw, (g, Read::Plain), (windows, Read::Transposed), true);
            }
            if dx.is_empty() {
            } else if images == 1 && window.is_pointwise() {
                matmul(k, columns, o, dx, (weight, Read::Transposed), (g, Read::Plain), false);
            } else {
                scratch.gradient.resize(k * columns, 0.0);
                matmul(k, columns, o, &mut scratch.gradient, (weight, Read::Transposed), (g, Read::Plain), false);
                for (i, image) in dx.chunks_exact_mut(window.image_len()).enumerate() {
                    window.scatter(&scratch.gradient, columns, i * p, image);
                }
            }
        };
        let (dw, db) = sum_over_parts(batch, window.group(), &mut dx, [o * k, o], |images, dx, [dw, db]| {
            let mut scratch = Scratch::default();
            let size = window.group();
            let parts = x[images.start * window.image_len()..images.end * window.image_len()]
                .chunks(size * window.image_len())
                .zip(g[images.start * o * p..images.end * o * p].chunks(size * o * p));
            for (i, (x, g)) in parts.enumerate() {
                let dx = if dx.is_empty() { &mut [] } else { &mut dx[i * size * window.image_len()..][..x.len()] };
                group(&mut scratch, x, g, dx, dw, db);
            }
        });
        self.shaped([dx, dw, db], wanted)
    }
}

/// Calls `part` with ranges of images, their rows of `per_image` and zeroed buffers for sums of the given lengths, in
/// parallel; returns the sums over all parts. The partition is fixed, so that sums repeat bit for bit.
pub(crate) fn sum_over_parts(
    batch: usize,
    group: usize,
    per_image: &mut [f32],
    lengths: [usize; 2],
    part: impl Fn(Range<usize>, &mut [f32], [&mut [f32]; 2]) + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let size = images_per_part(batch, group);
    let row = per_image.len() / batch.max(1);
    let run = |(i, rows): (usize, &mut [f32])| {
        let mut sums = lengths.map(|length| vec![0.0f32; length]);
        let [first, second] = &mut sums;
        part(i * size..((i + 1) * size).min(batch), rows, [first, second]);
        sums
    };
    let parts: Vec<[Vec<f32>; 2]> = if row > 0 {
        per_image.par_chunks_mut(size * row).enumerate().map(run).collect()
    } else {
        (0..batch.div_ceil(size)).into_par_iter().map(|i| run((i, &mut []))).collect()
    };
    let mut totals = lengths.map(|length| vec![0.0f32; length]);
    for part in &parts {
        for (total, part) in totals.iter_mut().zip(part) {
            total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
        }
    }
    totals.into()
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        for (batch, x, weight, stride, padding, activation) in [
            (3, [1, 28, 28], [32, 3, 3], 2, 1, Activation::Relu),
            (5, [3, 28, 28], [8, 3, 3], 1, 1, Activation::Identity),
            (2, [16, 14, 14], [16, 3, 3], 1, 1, Activation::Silu),
            (9, [4, 7, 7], [16, 3, 3], 1, 1, Activation::Tanh),
            (2, [6, 9, 11], [5, 4, 2], 3, 2, Activation::Identity),
            (1, [4, 84, 84], [32, 8, 8], 4, 0, Activation::Relu),
            (3, [32, 28, 28], [48, 3, 3], 1, 1, Activation::Identity),
            (70, [32, 7, 7], [64, 3, 3], 1, 1, Activation::Identity),
            (3, [32, 14, 14], [64, 1, 1], 1, 0, Activation::Identity),
            (11, [8, 5, 5], [3, 1, 1], 1, 0, Activation::Identity),
            (4, [3, 10, 10], [7, 3, 3], 2, 0, Activation::Identity),
        ] {
            let [c, h, w] = x;
            let [o, kh, kw] = weight;
            let (x_shape, weight_shape) = ([batch, c, h, w], [o, c, kh, kw]);
            agree(&format!("{x:?} {weight:?}"), [&x_shape, &weight_shape, &[o]], |[x, weight, bias], fused| {
                let op = if fused { conv2d } else { stock };
                op(x.reshape(x_shape), weight.reshape(weight_shape), bias, stride, padding, activation)
            });
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_thread_count() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let device = Device::flex().autodiff();
                let values = |n: usize| (0..n).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect::<Vec<f32>>();
                let tensor = |shape: [usize; 4]| {
                    Tensor::<4>::from_data(TensorData::new(values(shape.iter().product()), shape), &device)
                };
                let x = tensor([37, 5, 9, 9]);
                let weight = tensor([6, 5, 3, 3]).require_grad();
                let bias = Tensor::zeros([6], &device);
                let gradients = conv2d(x, weight.clone(), bias, 1, 1, Activation::Relu).square().sum().backward();
                weight.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap()
            })
        };
        let one = run(1);
        assert!([2, 3, 8].iter().all(|threads| run(*threads) == one));
    }

    #[test]
    #[should_panic(expected = "the kernel takes 3 channels, the image has 2")]
    fn channels_that_do_not_fit_are_refused() {
        let device = Device::flex();
        let x = Tensor::zeros([1, 2, 5, 5], &device);
        conv2d(x, Tensor::zeros([4, 3, 3, 3], &device), Tensor::zeros([4], &device), 1, 1, Activation::Identity);
    }
}
