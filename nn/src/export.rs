//! Policies as plain layers, for use outside this program: in memory, and as an ONNX model.

mod onnx;
mod protobuf;

pub use onnx::onnx;

use crate::ops::Activation;

/// One step from an observation to the output.
#[derive(Clone, Debug, PartialEq)]
pub enum ExportLayer {
    /// `clamp((x - mean) scale, -clip, clip)` on rows `[N, D]`.
    Normalize {
        /// `[D]`
        mean: Vec<f32>,
        /// `[D]`
        scale: Vec<f32>,
        /// Bound of the result.
        clip: f32,
    },
    /// Rows `[N, C H W]` to images `[N, C, H, W]`.
    Image([usize; 3]),
    /// A convolution without padding and an activation.
    Conv {
        /// `[outputs, inputs, size, size]`
        kernel: Vec<f32>,
        /// The kernel's shape.
        shape: [usize; 4],
        /// `[outputs]`
        bias: Vec<f32>,
        /// Step between windows.
        stride: usize,
        /// What follows.
        activation: Activation,
    },
    /// Images to rows.
    Flatten,
    /// `activation(x weight + bias)`.
    Dense {
        /// `[inputs, outputs]`
        weight: Vec<f32>,
        /// `[outputs]`
        bias: Vec<f32>,
        /// What follows.
        activation: Activation,
    },
    /// `activation((x - mean) / sqrt(variance + epsilon) scale + offset)` with each row's mean and variance.
    LayerNorm {
        /// `[D]`
        scale: Vec<f32>,
        /// `[D]`
        offset: Vec<f32>,
        /// Added to the variance.
        epsilon: f32,
        /// What follows.
        activation: Activation,
    },
    /// A gated recurrent unit as in [`crate::ops::gru`]: rows `[N, D]` and states `[N, H]` to the next states, which are
    /// its output. A policy has one at most.
    Gru {
        /// `[D, 3H]`
        input: Vec<f32>,
        /// `[3H]`
        input_bias: Vec<f32>,
        /// `[H, 3H]`
        hidden: Vec<f32>,
        /// `[3H]`
        hidden_bias: Vec<f32>,
    },
    /// `value + advantage - mean advantage`: rows go through both streams, to `[N, M]` and `[N, A M]`, and come out as
    /// `[N, A M]`.
    Dueling {
        /// The stream to `[N, M]`.
        value: Vec<ExportLayer>,
        /// The stream to `[N, A M]`.
        advantage: Vec<ExportLayer>,
        /// Number of actions `A`.
        actions: usize,
    },
    /// Rows `[N, A M]` to expectations `[N, A]`: sums over `M` weighted by `values`, of probabilities where the row holds
    /// logits.
    Expectation {
        /// `[M]`
        values: Vec<f32>,
        /// Whether a softmax over `M` comes first.
        softmax: bool,
    },
    /// `tanh` of the first `A` columns, stretched from `[-1, 1]` to the bounds.
    Squash {
        /// `[A]`
        low: Vec<f32>,
        /// `[A]`
        high: Vec<f32>,
    },
}

/// A parameter's name among the arrays and the graph's initialisers, its shape and its numbers.
pub type Parameter<'a> = (String, Vec<usize>, &'a [f32]);

/// The name of a layer's parameter, such as `layer2.weight`; `stream` is empty or the name of the layer and the stream
/// that hold it, as in `layer2.value.layer0.weight`.
pub fn parameter_name(stream: &str, layer: usize, parameter: &str) -> String {
    format!("{stream}layer{layer}.{parameter}")
}

/// The name of the stream `name` of a layer, for [`parameter_name`].
pub fn stream_name(stream: &str, layer: usize, name: &str) -> String {
    format!("{stream}layer{layer}.{name}.")
}

/// All parameters of the layers.
pub fn parameters(layers: &[ExportLayer]) -> Vec<Parameter<'_>> {
    let mut all = Vec::new();
    push_parameters(layers, "", &mut all);
    all
}

fn push_parameters<'a>(layers: &'a [ExportLayer], stream: &str, all: &mut Vec<Parameter<'a>>) {
    for (l, layer) in layers.iter().enumerate() {
        let mut push =
            |name: &str, shape: Vec<usize>, values| all.push((parameter_name(stream, l, name), shape, values));
        let mut vectors = |named: &[(&str, &'a Vec<f32>)]| {
            named.iter().for_each(|(name, values)| push(name, vec![values.len()], &values[..]));
        };
        match layer {
            ExportLayer::Normalize { mean, scale, .. } => vectors(&[("mean", mean), ("scale", scale)]),
            ExportLayer::LayerNorm { scale, offset, .. } => vectors(&[("scale", scale), ("offset", offset)]),
            ExportLayer::Expectation { values, .. } => vectors(&[("values", values)]),
            ExportLayer::Squash { low, high } => vectors(&[("low", low), ("high", high)]),
            ExportLayer::Conv { kernel, shape, bias, .. } => {
                vectors(&[("bias", bias)]);
                push("weight", shape.to_vec(), kernel);
            }
            ExportLayer::Dense { weight, bias, .. } => {
                vectors(&[("bias", bias)]);
                push("weight", vec![weight.len() / bias.len(), bias.len()], weight);
            }
            ExportLayer::Gru { input, input_bias, hidden, hidden_bias } => {
                vectors(&[("input_bias", input_bias), ("hidden_bias", hidden_bias)]);
                let gates = input_bias.len();
                push("input", vec![input.len() / gates, gates], input);
                push("hidden", vec![hidden.len() / gates, gates], hidden);
            }
            ExportLayer::Dueling { value, advantage, .. } => {
                push_parameters(value, &stream_name(stream, l, "value"), all);
                push_parameters(advantage, &stream_name(stream, l, "advantage"), all);
            }
            ExportLayer::Image(_) | ExportLayer::Flatten => {}
        }
    }
}

/// Units of the layers' memory; `None` without one.
pub fn state_len(layers: &[ExportLayer]) -> Option<usize> {
    layers.iter().find_map(|layer| match layer {
        ExportLayer::Gru { hidden_bias, .. } => Some(hidden_bias.len() / 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_carry_their_layer_stream_and_shape() {
        let dense = |inputs: usize, outputs: usize| ExportLayer::Dense {
            weight: vec![0.0; inputs * outputs],
            bias: vec![0.0; outputs],
            activation: Activation::Tanh,
        };
        let streams = ExportLayer::Dueling { value: vec![dense(2, 1)], advantage: vec![dense(2, 4)], actions: 4 };
        let layers = [ExportLayer::Flatten, dense(3, 2), streams];
        let mut names: Vec<_> = parameters(&layers).into_iter().map(|(name, shape, _)| (name, shape)).collect();
        names.sort();
        let want = [
            ("layer1.bias", vec![2]),
            ("layer1.weight", vec![3, 2]),
            ("layer2.advantage.layer0.bias", vec![4]),
            ("layer2.advantage.layer0.weight", vec![2, 4]),
            ("layer2.value.layer0.bias", vec![1]),
            ("layer2.value.layer0.weight", vec![2, 1]),
        ];
        assert_eq!(names, want.map(|(name, shape)| (name.to_owned(), shape)));
        let model = onnx(&layers, 3, 4, "q_values");
        assert!([&b"Gemm"[..], b"Tanh", b"ReduceMean"].iter().all(|op| model.windows(op.len()).any(|w| w == *op)));
    }
}
