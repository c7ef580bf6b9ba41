//! The gated recurrent unit as a Burn module and compiled for acting; the arithmetic is in [`crate::ops::gru`].

use burn::module::Param;
use burn::prelude::*;
use hotfire_core::seed::StreamRng;

use crate::export::ExportLayer;
use crate::init::orthogonal;
use crate::ops::gru::{GruKernel, GruWeights, Kept, Sequences, gru};
use crate::ops::kernel::{Activation, Dense};

/// A gated recurrent unit.
#[derive(Module, Debug)]
pub struct Gru {
    /// `[D, 3H]`, gates `r`, `z`, `n`.
    input: Param<Tensor<2>>,
    /// `[3H]`
    input_bias: Param<Tensor<1>>,
    /// `[H, 3H]`
    hidden: Param<Tensor<2>>,
    /// `[3H]`
    hidden_bias: Param<Tensor<1>>,
}

impl Gru {
    /// Orthogonal weights, gate by gate, and zero biases, for `inputs` inputs and `units` units.
    pub fn orthogonal(inputs: usize, units: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let mut gates = |rows| {
            let gates = (0..3).map(|_| orthogonal(rows, units, 1.0, rng, device)).collect();
            Param::from_tensor(Tensor::cat(gates, 1))
        };
        let zeros = || Param::from_tensor(Tensor::zeros([3 * units], device));
        Self { input: gates(inputs), input_bias: zeros(), hidden: gates(units), hidden_bias: zeros() }
    }

    /// Number of units `H`.
    pub fn units(&self) -> usize {
        self.hidden.dims()[0]
    }

    /// States `[T B, H]` after each step for inputs `[T B, D]`, time-major.
    pub fn forward(&self, x: Tensor<2>, sequences: Sequences<'_>) -> Tensor<2> {
        let weights = GruWeights {
            input: self.input.val(),
            input_bias: self.input_bias.val(),
            hidden: self.hidden.val(),
            hidden_bias: self.hidden_bias.val(),
        };
        gru(x, weights, sequences)
    }

    /// The unit for use outside.
    pub fn export(&self) -> ExportLayer {
        let CompiledGru { input, input_bias, hidden, hidden_bias } = self.compile();
        ExportLayer::Gru { input, input_bias, hidden, hidden_bias }
    }

    /// A snapshot for acting.
    pub fn compile(&self) -> CompiledGru {
        fn read<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
            param.val().into_data().try_into_vec().expect("parameters are 32-bit floats")
        }
        CompiledGru {
            input: read(&self.input),
            input_bias: read(&self.input_bias),
            hidden: read(&self.hidden),
            hidden_bias: read(&self.hidden_bias),
        }
    }
}

/// A [`Gru`] as plain matrices.
#[derive(Clone, Debug)]
pub struct CompiledGru {
    input: Vec<f32>,
    input_bias: Vec<f32>,
    hidden: Vec<f32>,
    hidden_bias: Vec<f32>,
}

impl CompiledGru {
    /// Number of units `H`.
    pub fn units(&self) -> usize {
        self.hidden_bias.len() / 3
    }

    /// Advances the states `[N, H]` by one step with inputs `x: [N, D]`.
    pub fn step(&self, x: &[f32], states: &mut [f32]) {
        let rows = states.len() / self.units();
        let dense = |weight, bias| Dense { weight, bias, activation: Activation::Identity };
        let kernel =
            GruKernel { input: dense(&self.input, &self.input_bias), hidden: dense(&self.hidden, &self.hidden_bias) };
        let before = states.to_vec();
        let sequences = Sequences { initial: &before, starts: &vec![false; rows] };
        kernel.forward(x, sequences, states, &mut Kept::new(rows, self.units()));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn stepping_equals_the_sequence() {
        let device = Device::flex();
        let mut rng = stream(1, "test", 0);
        let net = Gru::orthogonal(3, 8, &mut rng, &device);
        let (steps, batch) = (5, 4);
        let mut x = vec![0.0; steps * batch * 3];
        rng.fill_normal(&mut x);
        let starts: Vec<bool> = (0..steps * batch).map(|i| i == 9).collect();
        let mut states = vec![0.5; batch * 8];
        let rows = Tensor::from_data(TensorData::new(x.clone(), [steps * batch, 3]), &device);
        let want = net.forward(rows, Sequences { initial: &states, starts: &starts });
        let want: Vec<f32> = want.into_data().try_into_vec().unwrap();
        let compiled = net.compile();
        for t in 0..steps {
            (0..batch).filter(|b| starts[t * batch + b]).for_each(|b| states[b * 8..(b + 1) * 8].fill(0.0));
            compiled.step(&x[t * batch * 3..][..batch * 3], &mut states);
            let want = &want[t * batch * 8..][..batch * 8];
            assert!(states.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "step {t}");
        }
    }
}
