//! A gated recurrent unit over whole sequences as one op, with backpropagation through time.
//!
//! Cho et al. 2014, <https://arxiv.org/abs/1406.1078>, in the variant of cuDNN and PyTorch, where the reset gate acts
//! after the recurrent product:
//!
//! ```text
//! r = sigmoid(x Wr + h Ur + ..)    z = sigmoid(x Wz + h Uz + ..)    n = tanh(x Wn + c + r (h Un + d))
//! h' = (1 - z) n + z h
//! ```

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::sigmoid;
use burn_flex::FlexTensor;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Activation, Dense, activate_gates};

/// Weights of a GRU with `D` inputs and `H` units; the columns hold the gates `r`, `z`, `n` one after another.
#[derive(Clone, Debug)]
pub struct GruWeights {
    /// `[D, 3H]`
    pub input: Tensor<2>,
    /// `[3H]`
    pub input_bias: Tensor<1>,
    /// `[H, 3H]`
    pub hidden: Tensor<2>,
    /// `[3H]`
    pub hidden_bias: Tensor<1>,
}

/// `B` sequences of `T` steps, in host memory.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// State before the first step: `[B, H]`. No gradient flows into it.
    pub initial: &'a [f32],
    /// Where a step is the first of an episode, so that nothing is remembered: `[T, B]`.
    pub starts: &'a [bool],
}

/// States `[T B, H]` after each step for inputs `x: [T B, D]`, both time-major.
///
/// # Panics
/// If lengths don't fit.
pub fn gru(x: Tensor<2>, weights: GruWeights, sequences: Sequences<'_>) -> Tensor<2> {
    let units = weights.hidden.dims()[0];
    let batch = sequences.initial.len() / units;
    let rows = x.dims()[0];
    assert_eq!((sequences.starts.len(), rows % batch.max(1)), (rows, 0), "{rows} steps of {batch} sequences");
    if !on_host(&x) {
        return stock(x, weights, sequences);
    }
    let parents = [
        Parent::new(x),
        Parent::new(weights.input),
        Parent::new(weights.input_bias),
        Parent::new(weights.hidden),
        Parent::new(weights.hidden_bias),
    ];
    host_op::apply(parents, |values| {
        let kernel = GruKernel {
            input: Dense { weight: values[1].storage(), bias: values[2].storage(), activation: Activation::Identity },
            hidden: Dense { weight: values[3].storage(), bias: values[4].storage(), activation: Activation::Identity },
        };
        let mut kept = Kept::new(rows, units);
        let mut output = vec![0.0; rows * units];
        kernel.forward(values[0].storage(), sequences, &mut output, &mut kept);
        let output = host_op::tensor(output, [rows, units]);
        (output, Gru { values: values.to_vec(), starts: sequences.starts.to_vec(), batch, kept })
    })
}

/// The arithmetic on plain slices, shared by learning and acting.
#[derive(Clone, Copy)]
pub(crate) struct GruKernel<'a> {
    pub input: Dense<'a>,
    pub hidden: Dense<'a>,
}

/// What the backward pass needs of each step.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Gates after their activations, `[T B, 3H]`.
    gates: Vec<f32>,
    /// `h Un + d`: `[T B, H]`.
    hidden_n: Vec<f32>,
    /// The state that each step started from: `[T B, H]`.
    before: Vec<f32>,
}

impl Kept {
    pub fn new(rows: usize, units: usize) -> Self {
        Self { gates: vec![0.0; rows * 3 * units], hidden_n: vec![0.0; rows * units], before: vec![0.0; rows * units] }
    }
}

impl GruKernel<'_> {
    /// Writes the states after each step.
    pub fn forward(&self, x: &[f32], sequences: Sequences<'_>, output: &mut [f32], kept: &mut Kept) {
        let units = self.hidden.inputs();
        let batch = sequences.initial.len() / units;
        self.input.forward(x, &mut kept.gates, None);
        let mut product = vec![0.0; batch * 3 * units];
        for t in 0..sequences.starts.len() / batch {
            let rows = t * batch * units..(t + 1) * batch * units;
            let (earlier, output) = output.split_at_mut(rows.start);
            let before = &mut kept.before[rows.clone()];
            before.copy_from_slice(if t == 0 { sequences.initial } else { &earlier[rows.start - batch * units..] });
            for (h, start) in before.chunks_exact_mut(units).zip(&sequences.starts[t * batch..]) {
                if *start {
                    h.fill(0.0);
                }
            }
            self.hidden.forward(before, &mut product, None);
            let gates = &mut kept.gates[3 * rows.start..3 * rows.end];
            let hidden_n = &mut kept.hidden_n[rows];
            for (b, gates) in gates.chunks_exact_mut(3 * units).enumerate() {
                let product = &product[b * 3 * units..][..3 * units];
                let hidden_n = &mut hidden_n[b * units..][..units];
                hidden_n.copy_from_slice(&product[2 * units..]);
                activate_gates(gates, product, units);
                let (r_z, n) = gates.split_at(2 * units);
                let before = &before[b * units..][..units];
                for (u, h) in output[b * units..][..units].iter_mut().enumerate() {
                    let z = r_z[units + u];
                    *h = (1.0 - z) * n[u] + z * before[u];
                }
            }
        }
    }
}

/// Parents' values and what the forward pass kept.
#[derive(Clone, Debug)]
struct Gru {
    values: Vec<FlexTensor>,
    starts: Vec<bool>,
    batch: usize,
    kept: Kept,
}

impl HostOp for Gru {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let Self { values, starts, batch, kept } = self;
        let dense = |w: usize| Dense {
            weight: values[w].storage(),
            bias: values[w + 1].storage(),
            activation: Activation::Identity,
        };
        let (input, hidden) = (dense(1), dense(3));
        let (inputs, units) = (input.inputs(), hidden.inputs());
        let rows = starts.len();
        let gradient = host_op::contiguous(&gradient);
        let gradient: &[f32] = gradient.storage();
        // Gradients of both products, and of the state that the step in hand ended in.
        let (mut d_input, mut d_hidden) = (vec![0.0f32; rows * 3 * units], vec![0.0f32; rows * 3 * units]);
        let mut d_state = vec![0.0f32; batch * units];
        let mut d_before = vec![0.0f32; batch * units];
        for t in (0..rows / batch).rev() {
            for b in 0..batch {
                let row = t * batch + b;
                let gates = &kept.gates[row * 3 * units..][..3 * units];
                let (d_input, d_hidden) =
                    (&mut d_input[row * 3 * units..][..3 * units], &mut d_hidden[row * 3 * units..][..3 * units]);
                for u in 0..units {
                    let at = row * units + u;
                    let (r, z, n) = (gates[u], gates[units + u], gates[2 * units + u]);
                    let dh = d_state[b * units + u] + gradient[at];
                    let dz = dh * (kept.before[at] - n) * z * (1.0 - z);
                    let dn = dh * (1.0 - z) * (1.0 - n * n);
                    let dr = dn * kept.hidden_n[at] * r * (1.0 - r);
                    (d_input[u], d_input[units + u], d_input[2 * units + u]) = (dr, dz, dn);
                    (d_hidden[u], d_hidden[units + u], d_hidden[2 * units + u]) = (dr, dz, dn * r);
                    d_state[b * units + u] = dh * z;
                }
            }
            let step = &d_hidden[t * batch * 3 * units..(t + 1) * batch * 3 * units];
            hidden.input_gradient(step, &mut d_before);
            for b in 0..batch {
                let state = &mut d_state[b * units..][..units];
                if starts[t * batch + b] {
                    state.fill(0.0);
                } else {
                    state.iter_mut().zip(&d_before[b * units..]).for_each(|(s, d)| *s += d);
                }
            }
        }
        let width = 3 * units;
        let (mut d_weight, mut d_bias) = (vec![0.0; units * width], vec![0.0; width]);
        hidden.backward(&kept.before, &kept.gates, &mut d_hidden, &mut d_weight, &mut d_bias, None);
        let (mut d_input_weight, mut d_input_bias) = (vec![0.0; inputs * width], vec![0.0; width]);
        let mut dx = wanted[0].then(|| vec![0.0; rows * inputs]);
        let (x, dx_slice) = (values[0].storage(), dx.as_deref_mut());
        input.backward(x, &kept.gates, &mut d_input, &mut d_input_weight, &mut d_input_bias, dx_slice);
        vec![
            dx.map(|dx| host_op::tensor(dx, [rows, inputs])),
            Some(host_op::tensor(d_input_weight, [inputs, width])),
            Some(host_op::tensor(d_input_bias, [width])),
            Some(host_op::tensor(d_weight, [units, width])),
            Some(host_op::tensor(d_bias, [width])),
        ]
    }
}

/// The same function of stock Burn ops.
fn stock(x: Tensor<2>, weights: GruWeights, sequences: Sequences<'_>) -> Tensor<2> {
    let device = x.device();
    let units = weights.hidden.dims()[0];
    let batch = sequences.initial.len() / units;
    let product = x.matmul(weights.input) + weights.input_bias.unsqueeze();
    let initial = TensorData::new(sequences.initial.to_vec(), [batch, units]);
    let mut h = Tensor::<2>::from_data(initial, &device);
    let mut states = Vec::new();
    for (t, starts) in sequences.starts.chunks_exact(batch).enumerate() {
        let keep: Vec<f32> = starts.iter().map(|start| if *start { 0.0 } else { 1.0 }).collect();
        h = h * Tensor::<2>::from_data(TensorData::new(keep, [batch, 1]), &device);
        let x = product.clone().narrow(0, t * batch, batch);
        let recurrent = h.clone().matmul(weights.hidden.clone()) + weights.hidden_bias.clone().unsqueeze();
        let gate = |tensor: &Tensor<2>, g: usize| tensor.clone().narrow(1, g * units, units);
        let r = sigmoid(gate(&x, 0) + gate(&recurrent, 0));
        let z = sigmoid(gate(&x, 1) + gate(&recurrent, 1));
        let n = (gate(&x, 2) + r * gate(&recurrent, 2)).tanh();
        h = n.clone() + z * (h - n);
        states.push(h.clone());
    }
    Tensor::cat(states, 0)
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::super::testing::agree;
    use super::*;

    /// With episodes that start in the middle.
    #[test]
    fn agrees_with_the_stock_ops() {
        for (steps, batch, inputs, units) in [(1, 3, 4, 5), (7, 2, 3, 8), (40, 20, 6, 32)] {
            let mut initial = vec![0.0; batch * units];
            stream(1, "test", 0).fill_normal(&mut initial);
            let starts: Vec<bool> = (0..steps * batch).map(|i| i % 9 == 4).collect();
            let (x, input, hidden) = ([steps * batch, inputs], [inputs, 3 * units], [units, 3 * units]);
            let bias = [3 * units];
            let shapes: [&[usize]; 5] = [&x, &input, &bias, &hidden, &bias];
            agree(
                &format!("{steps}x{batch}"),
                shapes,
                |[values, of_input, input_bias, of_hidden, hidden_bias], fused| {
                    let weights = GruWeights {
                        input: of_input.reshape(input),
                        input_bias,
                        hidden: of_hidden.reshape(hidden),
                        hidden_bias,
                    };
                    let op = if fused { gru } else { stock };
                    op(values.mul_scalar(2.0).reshape(x), weights, Sequences { initial: &initial, starts: &starts })
                },
            );
        }
    }
}
