//! Dense single-precision kernels on plain slices: the arithmetic behind the fused ops and the compiled actor.
//!
//! Matrices are row-major. Nothing here depends on the number of threads: large batches are cut into row blocks of a
//! fixed size, and partial sums over blocks are added in block order, so results repeat bit for bit.

// `gemm` takes raw pointers; the wrapper checks every length against the shapes before it passes them on.
#![allow(unsafe_code)]

use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

/// Largest number of rows of one unit of parallel work.
const BLOCK: usize = 256;

/// Inputs from which a layer's weight gradient is cut by its own rows instead of being summed over row blocks of `x`.
const WIDE: usize = 96;

/// Rows of one unit of parallel work: about eight units where the rows allow it. It depends on `rows` alone.
pub(crate) fn row_block(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(16).clamp(48, BLOCK)
}

/// Multiply-adds below which a product is not worth a second thread.
const PARALLEL_WORK: usize = 1 << 21;

/// Elementwise nonlinearity of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x`
    Identity,
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`
    Silu,
    /// `x Φ(x)` with the normal distribution's `Φ` (Hendrycks & Gimpel 2016), not its tanh approximation
    Gelu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
}

impl Activation {
    /// Whether the derivative can be had from the output alone, so that the input need not be kept.
    pub(crate) fn derivative_from_output(self) -> bool {
        !matches!(self, Self::Silu | Self::Gelu)
    }
}

/// How a row-major matrix is read by [`matmul`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Plain,
    Transposed,
}

/// `c (+)= a b` with `c: [m, n]`, `a: [m, k]` (or `[k, m]` read transposed), `b: [k, n]` (or `[n, k]` read transposed).
pub(crate) fn matmul(
    m: usize,
    n: usize,
    k: usize,
    c: &mut [f32],
    a: (&[f32], Read),
    b: (&[f32], Read),
    accumulate: bool,
) {
    let view = |(data, read), rows: usize, cols: usize| match read {
        Read::Plain => View { data, row_stride: cols, column_stride: 1 },
        Read::Transposed => View { data, row_stride: 1, column_stride: rows },
    };
    matmul_strided([m, n, k], c, n, view(a, m, k), view(b, k, n), 1.0, accumulate);
}

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl View<'_> {
    /// The matrix read as its transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.data.len()
    }
}

/// `c (+)= scale a b` with `c: [m, n]` whose rows are `c_stride` apart, `a: [m, k]` and `b: [k, n]`.
pub(crate) fn matmul_strided(
    [m, n, k]: [usize; 3],
    c: &mut [f32],
    c_stride: usize,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    accumulate: bool,
) {
    let fits = View { data: c, row_stride: c_stride, column_stride: 1 }.holds(m, n) && (c_stride >= n || m <= 1);
    assert!(fits && a.holds(m, k) && b.holds(k, n), "matmul: operands shorter than their shapes");
    // SAFETY: the assertion above bounds every element that these shapes and strides reach, `c` is borrowed mutably and
    // so overlaps neither `a` nor `b`, and all elements are initialised.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            if accumulate { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `a b + c`, fused where the instruction exists: without it, the fused form is a slow library call.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `tanh` as a rational minimax approximation on [-7.9, 7.9], where it saturates in single precision; the largest
/// error is 4e-7. It is written without branches so that it vectorises.
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f32) -> f32 {
    const P: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
    const Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let x = x.clamp(-7.905_311, 7.905_311);
    let x2 = x * x;
    let polynomial = |c: &[f32]| c[1..].iter().fold(c[0], |sum, c| mul_add::<FMA>(x2, sum, *c));
    x * polynomial(&P) / polynomial(&Q)
}

/// `exp(x)` by range reduction to `2^n exp(r)`, `|r| <= ln(2) / 2`, and a polynomial of degree 6; the largest relative
/// error is 3e-7. Results below the smallest normal number are that number.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding and subtracting it rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    const C: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = x.clamp(-87.336, 88.376);
    let n = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND) - ROUND;
    // ln(2) in two parts, the first with few enough bits that its multiples are exact.
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, mul_add::<FMA>(n, -0.693_359_4, x));
    let p = C[1..].iter().fold(C[0], |sum, c| mul_add::<FMA>(r, sum, *c));
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// `1 / (1 + exp(-x))`, accurate to a few units in the last place also where it is tiny.
#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// `ln(1 + exp(x))`, with an absolute error below 3e-7 near zero and a relative one of that size beyond.
#[inline(always)]
pub(super) fn softplus<const FMA: bool>(x: f32) -> f32 {
    // ln(1 + e) = 2 artanh(e / (2 + e)), whose argument is at most 1/3.
    const C: [f32; 7] = [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];
    let e = exp::<FMA>(-x.abs());
    let s = e / (2.0 + e);
    let s2 = s * s;
    let p = C[1..].iter().fold(C[0], |sum, c| mul_add::<FMA>(s2, sum, *c));
    x.max(0.0) + 2.0 * s * p
}

/// `Φ(x)` and the density `φ(x)` of the standard normal distribution. `Φ` is Abramowitz & Stegun 7.1.26, whose largest
/// error is 8e-8, in the tail of either side, so that small values keep their sign and order.
#[inline(always)]
fn normal_cdf_pdf<const FMA: bool>(x: f32) -> (f32, f32) {
    const A: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6];
    let density = exp::<FMA>(-0.5 * x * x);
    let t = 1.0 / mul_add::<FMA>(0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2, x.abs(), 1.0);
    let tail = 0.5 * t * A[1..].iter().fold(A[0], |sum, a| mul_add::<FMA>(t, sum, *a)) * density;
    (if x >= 0.0 { 1.0 - tail } else { tail }, density * 0.398_942_3)
}

/// `x Φ(x)`
#[inline(always)]
fn gelu<const FMA: bool>(x: f32) -> f32 {
    x * normal_cdf_pdf::<FMA>(x).0
}

/// The derivative of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
fn gelu_derivative<const FMA: bool>(x: f32) -> f32 {
    let (cdf, density) = normal_cdf_pdf::<FMA>(x);
    mul_add::<FMA>(x, density, cdf)
}

/// `y = gelu(x)`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_forward(x: &[f32], y: &mut [f32]) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    y.iter_mut().zip(x).for_each(|(y, x)| *y = gelu::<FMA>(*x));
}

/// `g *= gelu'(x)`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_backward(x: &[f32], g: &mut [f32]) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    g.iter_mut().zip(x).for_each(|(g, x)| *g *= gelu_derivative::<FMA>(*x));
}

/// The sum in sixteen lanes, so that it vectorises in a fixed order.
#[inline(always)]
pub(super) fn lane_sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 16];
    let mut values = values;
    while values.len() >= 16 {
        for lane in &mut lanes {
            *lane += values.next().expect("sixteen values are left");
        }
    }
    let rest: f32 = values.sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest value; NaN is passed over.
#[inline(always)]
pub(super) fn lane_max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for l in 0..16 {
            lanes[l] = if chunk[l] > lanes[l] { chunk[l] } else { lanes[l] };
        }
    }
    chunks.remainder().iter().chain(&lanes).fold(f32::NEG_INFINITY, |max, v| if *v > max { *v } else { max })
}

/// Replaces a row by its softmax and returns the logarithm of the sum of its exponentials.
#[inline(always)]
pub(super) fn softmax_row<const FMA: bool>(row: &mut [f32]) -> f32 {
    let max = lane_max(row);
    row.iter_mut().for_each(|v| *v = exp::<FMA>(*v - max));
    let sum = lane_sum(row.iter().copied());
    let scale = 1.0 / sum;
    row.iter_mut().for_each(|v| *v *= scale);
    max + sum.ln()
}

/// Applies the activation in place.
#[multiversion(targets = "simd")]
pub(crate) fn activate(y: &mut [f32], activation: Activation) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    match activation {
        Activation::Identity => {}
        Activation::Tanh => y.iter_mut().for_each(|v| *v = tanh::<FMA>(*v)),
        Activation::Relu => y.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Silu => y.iter_mut().for_each(|v| *v *= sigmoid::<FMA>(*v)),
        Activation::Gelu => y.iter_mut().for_each(|v| *v = gelu::<FMA>(*v)),
        Activation::Sigmoid => y.iter_mut().for_each(|v| *v = sigmoid::<FMA>(*v)),
    }
}

/// Turns a GRU's input product `[3H]` into its gates `r`, `z` and `n`, given the recurrent product.
#[multiversion(targets = "simd")]
pub(crate) fn activate_gates(gates: &mut [f32], recurrent: &[f32], units: usize) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let (r_z, n) = gates.split_at_mut(2 * units);
    let (recurrent_r_z, recurrent_n) = recurrent.split_at(2 * units);
    r_z.iter_mut().zip(recurrent_r_z).for_each(|(g, h)| *g = sigmoid::<FMA>(*g + h));
    n.iter_mut().zip(recurrent_n).zip(&*r_z).for_each(|((n, h), r)| *n = tanh::<FMA>(*n + r * h));
}

/// Turns the gradient of a layer's output into the gradient of its pre-activation, in place, and adds its column sums
/// to `db: [n]`. `kept` is what [`Activation::derivative_from_output`] asks for: the output, or the pre-activation.
#[multiversion(targets = "simd")]
fn activation_backward(g: &mut [f32], kept: &[f32], db: &mut [f32], activation: Activation) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let n = db.len();
    for (g, kept) in g.chunks_exact_mut(n).zip(kept.chunks_exact(n)) {
        through_activation::<FMA>(g, kept, activation);
        db.iter_mut().zip(&*g).for_each(|(b, g)| *b += g);
    }
}

/// Turns the gradient of an activation's output into that of its input, in place.
#[multiversion(targets = "simd")]
pub(crate) fn activation_gradient(g: &mut [f32], kept: &[f32], activation: Activation) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    through_activation::<FMA>(g, kept, activation);
}

/// Adds the sum of each row of `x: [n, columns]` to `sums: [n]`.
#[multiversion(targets = "simd")]
pub(crate) fn add_row_sums(x: &[f32], sums: &mut [f32]) {
    let columns = x.len() / sums.len();
    for (total, row) in sums.iter_mut().zip(x.chunks_exact(columns)) {
        *total += sum(row);
    }
}

/// Multiplies `g` by the activation's derivative.
#[inline(always)]
fn through_activation<const FMA: bool>(g: &mut [f32], kept: &[f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Tanh => g.iter_mut().zip(kept).for_each(|(g, y)| *g *= 1.0 - y * y),
        Activation::Relu => g.iter_mut().zip(kept).for_each(|(g, y)| *g = if *y > 0.0 { *g } else { 0.0 }),
        Activation::Silu => g.iter_mut().zip(kept).for_each(|(g, z)| *g *= silu_derivative::<FMA>(*z)),
        Activation::Gelu => g.iter_mut().zip(kept).for_each(|(g, z)| *g *= gelu_derivative::<FMA>(*z)),
        Activation::Sigmoid => g.iter_mut().zip(kept).for_each(|(g, y)| *g *= y * (1.0 - y)),
    }
}

#[inline(always)]
fn silu_derivative<const FMA: bool>(z: f32) -> f32 {
    let s = sigmoid::<FMA>(z);
    s * (1.0 + z * (1.0 - s))
}

/// The activation's derivative from its input.
#[inline(always)]
pub(crate) fn activation_derivative<const FMA: bool>(z: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Tanh => {
            let y = tanh::<FMA>(z);
            1.0 - y * y
        }
        Activation::Relu => f32::from(u8::from(z > 0.0)),
        Activation::Silu => silu_derivative::<FMA>(z),
        Activation::Gelu => gelu_derivative::<FMA>(z),
        Activation::Sigmoid => {
            let y = sigmoid::<FMA>(z);
            y * (1.0 - y)
        }
    }
}

/// The sum in a fixed order of 16 lanes.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for l in 0..16 {
            lanes[l] += chunk[l];
        }
    }
    lanes.iter().sum::<f32>() + chunks.remainder().iter().sum::<f32>()
}

/// One dense layer on slices: `weight: [k, n]`, `bias: [n]`.
#[derive(Clone, Copy)]
pub(crate) struct Dense<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub activation: Activation,
}

impl Dense<'_> {
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// `y = act(x w + b)` for `x: [m, k]`, `y: [m, n]`; `z: [m, n]` receives the pre-activation if given.
    pub fn forward(&self, x: &[f32], y: &mut [f32], z: Option<&mut [f32]>) {
        let (k, n) = (self.inputs(), self.outputs());
        let m = y.len() / n;
        if m * n * k < PARALLEL_WORK {
            return self.forward_rows(x, y, z);
        }
        let block = row_block(m);
        let rows = y.par_chunks_mut(block * n).zip(x.par_chunks(block * k));
        match z {
            Some(z) => {
                rows.zip(z.par_chunks_mut(block * n)).for_each(|((y, x), z)| self.forward_rows(x, y, Some(z)));
            }
            None => rows.for_each(|(y, x)| self.forward_rows(x, y, None)),
        }
    }

    fn forward_rows(&self, x: &[f32], y: &mut [f32], z: Option<&mut [f32]>) {
        let (k, n) = (self.inputs(), self.outputs());
        let m = y.len() / n;
        y.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(self.bias));
        if m <= SMALL_BATCH {
            matmul_small(y, x, self.weight, k, n);
        } else {
            matmul(m, n, k, y, (x, Read::Plain), (self.weight, Read::Plain), true);
        }
        if let Some(z) = z {
            z.copy_from_slice(y);
        }
        activate(y, self.activation);
    }

    /// Gradient `dx: [m, k]` of the input of a linear layer from that of its output `g: [m, n]`.
    pub fn input_gradient(&self, g: &[f32], dx: &mut [f32]) {
        let (k, n) = (self.inputs(), self.outputs());
        matmul(g.len() / n, k, n, dx, (g, Read::Plain), (self.weight, Read::Transposed), false);
    }

    /// Gradient `dx: [m, k]` of the input alone. `g: [m, n]` holds the gradient of `y` and is overwritten with that of
    /// the pre-activation.
    pub fn input_backward(&self, kept: &[f32], g: &mut [f32], dx: &mut [f32]) {
        let (k, n) = (self.inputs(), self.outputs());
        let rows = |g: &mut [f32], kept: &[f32], dx: &mut [f32]| {
            activation_gradient(g, kept, self.activation);
            self.input_gradient(g, dx);
        };
        if dx.len() * n < PARALLEL_WORK {
            return rows(g, kept, dx);
        }
        let block = row_block(g.len() / n);
        let blocks = g.par_chunks_mut(block * n).zip(kept.par_chunks(block * n)).zip(dx.par_chunks_mut(block * k));
        blocks.for_each(|((g, kept), dx)| rows(g, kept, dx));
    }

    /// Gradients of one layer. `g: [m, n]` holds the gradient of `y` and is overwritten with that of the
    /// pre-activation; `dw: [k, n]` and `db: [n]` are overwritten; `dx: [m, k]` is written if given.
    pub fn backward(
        &self,
        x: &[f32],
        kept: &[f32],
        g: &mut [f32],
        dw: &mut [f32],
        db: &mut [f32],
        dx: Option<&mut [f32]>,
    ) {
        let (k, n) = (self.inputs(), self.outputs());
        let m = g.len() / n;
        db.fill(0.0);
        if m * n * k < PARALLEL_WORK {
            activation_backward(g, kept, db, self.activation);
            matmul(k, n, m, dw, (x, Read::Transposed), (g, Read::Plain), false);
            if let Some(dx) = dx {
                matmul(m, k, n, dx, (g, Read::Plain), (self.weight, Read::Transposed), false);
            }
            return;
        }
        let block = row_block(m);
        if k >= WIDE {
            let partial: Vec<Vec<f32>> = g
                .par_chunks_mut(block * n)
                .zip(kept.par_chunks(block * n))
                .map(|(g, kept)| {
                    let mut db = vec![0.0; n];
                    activation_backward(g, kept, &mut db, self.activation);
                    db
                })
                .collect();
            for part in &partial {
                db.iter_mut().zip(part).for_each(|(a, b)| *a += b);
            }
            let g = &*g;
            let weight_gradient = || {
                let slice = k.div_ceil(8).next_multiple_of(16).clamp(32, BLOCK);
                dw.par_chunks_mut(slice * n).enumerate().for_each(|(i, dw)| {
                    let x = View { data: &x[i * slice..], row_stride: 1, column_stride: k };
                    let g = View { data: g, row_stride: n, column_stride: 1 };
                    matmul_strided([dw.len() / n, n, m], dw, n, x, g, 1.0, false);
                });
            };
            let input_gradient = || {
                let Some(dx) = dx else { return };
                dx.par_chunks_mut(block * k).zip(g.par_chunks(block * n)).for_each(|(dx, g)| {
                    matmul(g.len() / n, k, n, dx, (g, Read::Plain), (self.weight, Read::Transposed), false);
                });
            };
            rayon::join(weight_gradient, input_gradient);
            return;
        }
        let blocks = g.par_chunks_mut(block * n).zip(kept.par_chunks(block * n)).zip(x.par_chunks(block * k));
        let gradients = |g: &mut [f32], kept: &[f32], x: &[f32], dx: Option<&mut [f32]>| {
            let rows = g.len() / n;
            let (mut dw, mut db) = (vec![0.0; k * n], vec![0.0; n]);
            activation_backward(g, kept, &mut db, self.activation);
            matmul(k, n, rows, &mut dw, (x, Read::Transposed), (g, Read::Plain), false);
            if let Some(dx) = dx {
                matmul(rows, k, n, dx, (g, Read::Plain), (self.weight, Read::Transposed), false);
            }
            (dw, db)
        };
        let partial: Vec<(Vec<f32>, Vec<f32>)> = match dx {
            Some(dx) => blocks
                .zip(dx.par_chunks_mut(block * k))
                .map(|(((g, kept), x), dx)| gradients(g, kept, x, Some(dx)))
                .collect(),
            None => blocks.map(|((g, kept), x)| gradients(g, kept, x, None)).collect(),
        };
        dw.fill(0.0);
        for (dw_part, db_part) in &partial {
            dw.iter_mut().zip(dw_part).for_each(|(a, b)| *a += b);
            db.iter_mut().zip(db_part).for_each(|(a, b)| *a += b);
        }
    }
}

/// Rows up to which [`matmul_small`] beats packing the operands.
const SMALL_BATCH: usize = 16;

/// `y += x w` row by row: no packing, the accumulators of up to 64 outputs stay in registers.
#[multiversion(targets = "simd")]
fn matmul_small(y: &mut [f32], x: &[f32], w: &[f32], k: usize, n: usize) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    const TILE: usize = 64;
    for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(k)) {
        let mut j = 0;
        while j + TILE <= n {
            let mut acc = [0.0f32; TILE];
            acc.copy_from_slice(&y[j..j + TILE]);
            for (x, w) in x.iter().zip(w.chunks_exact(n)) {
                let w: &[f32; TILE] = w[j..j + TILE].try_into().expect("a tile has TILE columns");
                for l in 0..TILE {
                    acc[l] = mul_add::<FMA>(*x, w[l], acc[l]);
                }
            }
            y[j..j + TILE].copy_from_slice(&acc);
            j += TILE;
        }
        let rest = &mut y[j..];
        for (x, w) in x.iter().zip(w.chunks_exact(n)) {
            rest.iter_mut().zip(&w[j..]).for_each(|(y, w)| *y = mul_add::<FMA>(*x, *w, *y));
        }
    }
}

/// Sum of squares in double precision, in a fixed order of 16 lanes.
#[multiversion(targets = "simd")]
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for l in 0..16 {
            lanes[l] += f64::from(chunk[l]) * f64::from(chunk[l]);
        }
    }
    lanes.iter().sum::<f64>() + chunks.remainder().iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>()
}

/// The scalars of one Adam step, bias corrections folded in.
#[derive(Clone, Copy)]
pub(crate) struct AdamScalars {
    pub beta_1: f32,
    pub beta_2: f32,
    pub gradient_scale: f32,
    pub step_size: f32,
    pub epsilon: f32,
    pub decay: f32,
    /// Whether the step is not divided by the root of the second moment.
    pub unscaled: bool,
}

/// One Adam step on slices, all of one parameter's length.
#[multiversion(targets = "simd")]
pub(crate) fn adam_step(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamScalars) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * s.gradient_scale;
        *m = s.beta_1 * *m + (1.0 - s.beta_1) * g;
        *v = s.beta_2 * *v + (1.0 - s.beta_2) * (g * g);
        let divisor = if s.unscaled { 1.0 } else { v.sqrt() + s.epsilon };
        *p = *p * s.decay - s.step_size * (*m / divisor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_are_close_to_the_reference() {
        fn worst<const FMA: bool>() -> [f64; 6] {
            let mut worst = [0.0f64; 6];
            for i in -860_000..=860_000 {
                let x = i as f32 * 1e-4;
                let exact = f64::from(x);
                let relative = |got: f32, want: f64| (f64::from(got) / want - 1.0).abs();
                worst[0] = worst[0].max((f64::from(tanh::<FMA>(x)) - exact.tanh()).abs());
                worst[1] = worst[1].max(relative(exp::<FMA>(x), exact.exp()));
                worst[2] = worst[2].max(relative(sigmoid::<FMA>(x), 1.0 / (1.0 + (-exact).exp())));
                let cdf = 0.5 * libm::erfc(-exact * std::f64::consts::FRAC_1_SQRT_2);
                let density = (-0.5 * exact * exact).exp() / (2.0 * std::f64::consts::PI).sqrt();
                worst[3] = worst[3].max((f64::from(gelu::<FMA>(x)) - exact * cdf).abs() / (1.0 + exact.abs()));
                let softplus = f64::from(softplus::<FMA>(x)) - exact.exp().ln_1p();
                worst[5] = worst[5].max(softplus.abs() / exact.abs().max(1.0));
                worst[4] = worst[4].max((f64::from(gelu_derivative::<FMA>(x)) - cdf - exact * density).abs());
            }
            worst
        }
        for worst in [worst::<false>(), worst::<true>()] {
            assert!(worst[0] < 4e-7 && worst[1] < 3e-7 && worst[2] < 4e-7, "largest errors {worst:?}");
            assert!(worst[3] < 2e-7 && worst[4] < 3e-7 && worst[5] < 3e-7, "largest errors {worst:?}");
        }
    }

    #[test]
    fn small_and_large_batches_agree_with_a_plain_loop() {
        for (m, k, n) in [(1, 4, 64), (4, 64, 64), (16, 3, 70), (33, 64, 2), (700, 40, 96)] {
            let value = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            let x: Vec<f32> = (0..m * k).map(|i| value(i, 1)).collect();
            let weight: Vec<f32> = (0..k * n).map(|i| value(i, 2)).collect();
            let bias: Vec<f32> = (0..n).map(|i| value(i, 3)).collect();
            let layer = Dense { weight: &weight, bias: &bias, activation: Activation::Identity };
            let mut y = vec![0.0; m * n];
            layer.forward(&x, &mut y, None);
            for i in 0..m {
                for j in 0..n {
                    let want = f64::from(bias[j])
                        + (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(weight[l * n + j])).sum::<f64>();
                    assert!((f64::from(y[i * n + j]) - want).abs() < 1e-4, "[{i}, {j}] of {m}x{k}x{n}");
                }
            }
        }
    }
}
