//! Feed-forward networks as plain layers, for use outside this program: in memory, and as an ONNX model.
//!
//! The ONNX file is written by hand: a model of a dozen nodes needs eight messages of ONNX's schema
//! (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), whose field numbers are beside them below.

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
}

/// The name of a layer's parameter among the arrays and the graph's initialisers, such as `layer2.weight`.
pub fn parameter_name(layer: usize, parameter: &str) -> String {
    format!("layer{layer}.{parameter}")
}

/// The layers' parameters with their names and shapes.
pub fn parameters(layers: &[ExportLayer]) -> Vec<(String, Vec<usize>, &[f32])> {
    let mut all = Vec::new();
    for (l, layer) in layers.iter().enumerate() {
        let mut push = |name: &str, shape: Vec<usize>, values| all.push((parameter_name(l, name), shape, values));
        match layer {
            ExportLayer::Normalize { mean, scale, .. } => {
                push("mean", vec![mean.len()], &mean[..]);
                push("scale", vec![scale.len()], &scale[..]);
            }
            ExportLayer::Conv { kernel, shape, bias, .. } => {
                push("weight", shape.to_vec(), &kernel[..]);
                push("bias", vec![bias.len()], &bias[..]);
            }
            ExportLayer::Dense { weight, bias, .. } => {
                push("weight", vec![weight.len() / bias.len(), bias.len()], &weight[..]);
                push("bias", vec![bias.len()], &bias[..]);
            }
            ExportLayer::Image(_) | ExportLayer::Flatten => {}
        }
    }
    all
}

/// ONNX's element type of 32-bit floats, and of 64-bit integers.
const FLOAT: u64 = 1;
const INT64: u64 = 7;
/// The version of the operators that are used.
const OPSET: u64 = 13;
/// The version of the file format that goes with it.
const IR_VERSION: u64 = 7;

/// The layers as an ONNX model (opset 13) from `observation: [N, inputs]` to `output_name: [N, outputs]`.
pub fn onnx(layers: &[ExportLayer], inputs: usize, outputs: usize, output_name: &str) -> Vec<u8> {
    let mut graph = Graph { nodes: Vec::new(), initializers: Vec::new(), value: "observation".into() };
    for (name, shape, values) in parameters(layers) {
        graph.initializers.push(float_tensor(&name, &shape, values));
    }
    for (l, layer) in layers.iter().enumerate() {
        graph.layer(l, layer);
    }
    let last = graph.value.clone();
    graph.nodes.push(node("Identity", &[&last], output_name, &[]));

    let mut body = Message::default();
    graph.nodes.iter().for_each(|node| body.bytes(1, node));
    body.text(2, "policy");
    graph.initializers.iter().for_each(|tensor| body.bytes(5, tensor));
    body.bytes(11, &value_info("observation", inputs));
    body.bytes(12, &value_info(output_name, outputs));
    let mut opset = Message::default();
    opset.number(2, OPSET);
    let mut model = Message::default();
    model.number(1, IR_VERSION);
    model.text(2, "hotfire");
    model.bytes(7, &body.0);
    model.bytes(8, &opset.0);
    model.0
}

/// A graph in the making; `value` is the name of what the last node made.
struct Graph {
    nodes: Vec<Vec<u8>>,
    initializers: Vec<Vec<u8>>,
    value: String,
}

impl Graph {
    fn layer(&mut self, l: usize, layer: &ExportLayer) {
        let parameter = |name| parameter_name(l, name);
        match layer {
            ExportLayer::Normalize { clip, .. } => {
                self.node("Sub", &[&parameter("mean")], &[]);
                self.node("Mul", &[&parameter("scale")], &[]);
                for (name, bound) in [("low", -clip), ("high", *clip)] {
                    self.initializers.push(float_tensor(&parameter(name), &[], &[bound]));
                }
                self.node("Clip", &[&parameter("low"), &parameter("high")], &[]);
            }
            ExportLayer::Image(shape) => {
                // 0 keeps the number of rows.
                let shape: Vec<i64> = [0].into_iter().chain(shape.iter().map(|n| *n as i64)).collect();
                self.initializers.push(int_tensor(&parameter("shape"), &shape));
                self.node("Reshape", &[&parameter("shape")], &[]);
            }
            ExportLayer::Conv { shape, stride, activation, .. } => {
                let attributes = [("kernel_shape", [shape[2], shape[3]]), ("strides", [*stride; 2])];
                self.node("Conv", &[&parameter("weight"), &parameter("bias")], &attributes);
                self.activation(l, *activation);
            }
            ExportLayer::Flatten => self.node("Flatten", &[], &[]),
            ExportLayer::Dense { activation, .. } => {
                self.node("Gemm", &[&parameter("weight"), &parameter("bias")], &[]);
                self.activation(l, *activation);
            }
        }
    }

    fn activation(&mut self, l: usize, activation: Activation) {
        match activation {
            Activation::Identity => {}
            Activation::Tanh => self.node("Tanh", &[], &[]),
            Activation::Relu => self.node("Relu", &[], &[]),
            Activation::Sigmoid => self.node("Sigmoid", &[], &[]),
            Activation::Silu => {
                let x = self.value.clone();
                self.node("Sigmoid", &[], &[]);
                self.node("Mul", &[&x], &[]);
            }
            Activation::Gelu => {
                // x / 2 (1 + erf(x / sqrt 2)); opset 13 has no node of its own for it.
                let x = self.value.clone();
                let constants = [("root_half", std::f32::consts::FRAC_1_SQRT_2), ("one", 1.0), ("half", 0.5)];
                let [root_half, one, half] = constants.map(|(name, value)| {
                    self.initializers.push(float_tensor(&parameter_name(l, name), &[], &[value]));
                    parameter_name(l, name)
                });
                self.node("Mul", &[&root_half], &[]);
                self.node("Erf", &[], &[]);
                self.node("Add", &[&one], &[]);
                self.node("Mul", &[&half], &[]);
                self.node("Mul", &[&x], &[]);
            }
        }
    }

    /// Appends a node from the current value and these parameters to the next value.
    fn node(&mut self, op: &str, parameters: &[&str], attributes: &[(&str, [usize; 2])]) {
        let output = format!("value{}", self.nodes.len());
        let inputs: Vec<&str> = [self.value.as_str()].into_iter().chain(parameters.iter().copied()).collect();
        self.nodes.push(node(op, &inputs, &output, attributes));
        self.value = output;
    }
}

/// `NodeProto`
fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, [usize; 2])]) -> Vec<u8> {
    const INTS: u64 = 7;
    let mut message = Message::default();
    inputs.iter().for_each(|input| message.text(1, input));
    message.text(2, output);
    message.text(3, output);
    message.text(4, op);
    for (name, values) in attributes {
        let mut attribute = Message::default();
        attribute.text(1, name);
        values.iter().for_each(|value| attribute.number(8, *value as u64));
        attribute.number(20, INTS);
        message.bytes(5, &attribute.0);
    }
    message.0
}

/// `TensorProto`
fn tensor(name: &str, shape: &[usize], element_type: u64, raw: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    shape.iter().for_each(|n| message.number(1, *n as u64));
    message.number(2, element_type);
    message.text(8, name);
    message.bytes(9, raw);
    message.0
}

fn float_tensor(name: &str, shape: &[usize], values: &[f32]) -> Vec<u8> {
    tensor(name, shape, FLOAT, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn int_tensor(name: &str, values: &[i64]) -> Vec<u8> {
    tensor(name, &[values.len()], INT64, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// `ValueInfoProto` of floats `[N, width]`
fn value_info(name: &str, width: usize) -> Vec<u8> {
    let (mut rows, mut columns, mut shape) = (Message::default(), Message::default(), Message::default());
    rows.text(2, "N");
    columns.number(1, width as u64);
    shape.bytes(1, &rows.0);
    shape.bytes(1, &columns.0);
    let (mut tensor, mut kind, mut message) = (Message::default(), Message::default(), Message::default());
    tensor.number(1, FLOAT);
    tensor.bytes(2, &shape.0);
    kind.bytes(1, &tensor.0);
    message.text(1, name);
    message.bytes(2, &kind.0);
    message.0
}

/// A protocol-buffer message in the making: fields are a number, a wire type and a value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protocol_buffers_are() {
        let mut message = Message::default();
        // The examples of the encoding's documentation: 150 in field 1, "testing" in field 2.
        message.number(1, 150);
        message.text(2, "testing");
        assert_eq!(message.0, *b"\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn parameters_carry_their_layer_and_shape() {
        let dense = ExportLayer::Dense { weight: vec![0.0; 6], bias: vec![0.0; 2], activation: Activation::Tanh };
        let layers = [ExportLayer::Flatten, dense];
        let names: Vec<_> = parameters(&layers).into_iter().map(|(name, shape, _)| (name, shape)).collect();
        assert_eq!(names, [("layer1.weight".to_owned(), vec![3, 2]), ("layer1.bias".to_owned(), vec![2])]);
        let model = onnx(&layers, 3, 2, "logits");
        assert!(model.windows(4).any(|w| w == b"Gemm") && model.windows(4).any(|w| w == b"Tanh"));
    }
}
