//! Exported layers as an ONNX graph. It is written by hand: two dozen operators and eight messages need no library.

use super::protobuf::{Attribute, Message, float_tensor, int_tensor, node, value_info};
use super::{ExportLayer, parameter_name, parameters, state_len, stream_name};
use crate::ops::Activation;

/// The version of the operators that are used.
const OPSET: u64 = 13;
/// The version of the file format that goes with it.
const IR_VERSION: u64 = 7;

/// The layers as an ONNX model (opset 13) from `observation: [N, inputs]` to `output_name: [N, outputs]`. A memory adds
/// the input `state: [N, H]`, zeros at the start of an episode, and the output `next_state: [N, H]`.
pub fn onnx(layers: &[ExportLayer], inputs: usize, outputs: usize, output_name: &str) -> Vec<u8> {
    let mut graph = Graph { nodes: Vec::new(), initializers: Vec::new(), value: "observation".into() };
    for (name, shape, values) in parameters(layers) {
        graph.initializers.push(float_tensor(&name, &shape, values));
    }
    graph.layers("", layers);
    let last = graph.value.clone();
    graph.nodes.push(node("Identity", &[&last], &[output_name], &[]));

    let mut body = Message::default();
    graph.nodes.iter().for_each(|node| body.bytes(1, node));
    body.text(2, "policy");
    graph.initializers.iter().for_each(|tensor| body.bytes(5, tensor));
    body.bytes(11, &value_info("observation", inputs));
    body.bytes(12, &value_info(output_name, outputs));
    if let Some(units) = state_len(layers) {
        body.bytes(11, &value_info("state", units));
        body.bytes(12, &value_info("next_state", units));
    }
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
    fn layers(&mut self, stream: &str, layers: &[ExportLayer]) {
        for (l, layer) in layers.iter().enumerate() {
            self.layer(stream, l, layer);
        }
    }

    fn layer(&mut self, stream: &str, l: usize, layer: &ExportLayer) {
        let parameter = |name: &str| parameter_name(stream, l, name);
        match layer {
            ExportLayer::Normalize { clip, .. } => {
                self.node("Sub", &[&parameter("mean")]);
                self.node("Mul", &[&parameter("scale")]);
                let (low, high) = (self.scalar(&parameter("low"), -clip), self.scalar(&parameter("high"), *clip));
                self.node("Clip", &[&low, &high]);
            }
            ExportLayer::Image([c, h, w]) => self.reshape(&parameter("shape"), &[*c, *h, *w]),
            ExportLayer::Conv { shape, stride, activation, .. } => {
                let kernel = Attribute::Ints(vec![shape[2] as u64, shape[3] as u64]);
                let attributes = [("kernel_shape", kernel), ("strides", Attribute::Ints(vec![*stride as u64; 2]))];
                self.node_with("Conv", &[&parameter("weight"), &parameter("bias")], &attributes);
                self.activation(&parameter, *activation);
            }
            ExportLayer::Flatten => self.node("Flatten", &[]),
            ExportLayer::Dense { activation, .. } => {
                self.node("Gemm", &[&parameter("weight"), &parameter("bias")]);
                self.activation(&parameter, *activation);
            }
            ExportLayer::LayerNorm { epsilon, activation, .. } => {
                let x = self.value.clone();
                self.mean(1);
                let mean = std::mem::replace(&mut self.value, x);
                self.node("Sub", &[&mean]);
                let centred = self.value.clone();
                self.node("Mul", &[&centred]);
                self.mean(1);
                let epsilon = self.scalar(&parameter("epsilon"), *epsilon);
                self.node("Add", &[&epsilon]);
                self.node("Sqrt", &[]);
                let deviation = std::mem::replace(&mut self.value, centred);
                self.node("Div", &[&deviation]);
                self.node("Mul", &[&parameter("scale")]);
                self.node("Add", &[&parameter("offset")]);
                self.activation(&parameter, *activation);
            }
            ExportLayer::Gru { .. } => self.gru(&parameter),
            ExportLayer::Dueling { value, advantage, actions } => {
                let x = self.value.clone();
                self.layers(&stream_name(stream, l, "value"), value);
                self.reshape(&parameter("value_shape"), &[1, WIDTH]);
                let value = std::mem::replace(&mut self.value, x);
                self.layers(&stream_name(stream, l, "advantage"), advantage);
                self.reshape(&parameter("advantage_shape"), &[*actions, WIDTH]);
                let advantage = self.value.clone();
                self.mean(1);
                let mean = std::mem::replace(&mut self.value, advantage);
                self.node("Sub", &[&mean]);
                self.node("Add", &[&value]);
                self.reshape(&parameter("shape"), &[WIDTH]);
            }
            ExportLayer::Expectation { values, softmax } => {
                self.reshape(&parameter("outputs_shape"), &[WIDTH, values.len()]);
                if *softmax {
                    self.node_with("Softmax", &[], &[("axis", Attribute::Int(2))]);
                }
                self.node("MatMul", &[&parameter("values")]);
            }
            ExportLayer::Squash { low, high } => {
                let bounds = [("first", 0), ("end", low.len() as i64), ("axis", 1)];
                let [first, end, axis] = bounds.map(|(name, value)| {
                    self.initializers.push(int_tensor(&parameter(name), &[value]));
                    parameter(name)
                });
                self.node("Slice", &[&first, &end, &axis]);
                self.node("Tanh", &[]);
                let half: Vec<f32> = low.iter().zip(high).map(|(low, high)| 0.5 * (high - low)).collect();
                let middle: Vec<f32> = low.iter().zip(high).map(|(low, high)| 0.5 * (high + low)).collect();
                for (name, values) in [("half_range", &half), ("middle", &middle)] {
                    self.initializers.push(float_tensor(&parameter(name), &[values.len()], values));
                }
                self.node("Mul", &[&parameter("half_range")]);
                self.node("Add", &[&parameter("middle")]);
            }
        }
    }

    /// ONNX's own GRU wants sequences and another order of gates, so that the step is written out.
    fn gru(&mut self, parameter: &dyn Fn(&str) -> String) {
        let input = self.value.clone();
        let mut gates = |of: &str, value: String| {
            self.value = value;
            self.node("Gemm", &[&parameter(of), &parameter(&format!("{of}_bias"))]);
            let parts = ["r", "z", "n"].map(|gate| parameter(&format!("{of}_{gate}")));
            let outputs = parts.each_ref().map(String::as_str);
            self.nodes.push(node("Split", &[&self.value], &outputs, &[("axis", Attribute::Int(1))]));
            parts
        };
        let x = gates("input", input);
        let h = gates("hidden", "state".into());
        let mut gate = |x: &String, h: &String| {
            self.value.clone_from(x);
            self.node("Add", &[h]);
            self.node("Sigmoid", &[]);
            self.value.clone()
        };
        let (reset, keep) = (gate(&x[0], &h[0]), gate(&x[1], &h[1]));
        // n = tanh(x_n + r h_n), then n + z (h - n).
        self.value = reset;
        self.node("Mul", &[&h[2]]);
        self.node("Add", &[&x[2]]);
        self.node("Tanh", &[]);
        let new = std::mem::replace(&mut self.value, "state".into());
        self.node("Sub", &[&new]);
        self.node("Mul", &[&keep]);
        self.node("Add", &[&new]);
        self.nodes.push(node("Identity", &[&self.value], &["next_state"], &[]));
    }

    fn activation(&mut self, parameter: &dyn Fn(&str) -> String, activation: Activation) {
        match activation {
            Activation::Identity => {}
            Activation::Tanh => self.node("Tanh", &[]),
            Activation::Relu => self.node("Relu", &[]),
            Activation::Sigmoid => self.node("Sigmoid", &[]),
            Activation::Silu => {
                let x = self.value.clone();
                self.node("Sigmoid", &[]);
                self.node("Mul", &[&x]);
            }
            Activation::Gelu => {
                // x / 2 (1 + erf(x / sqrt 2)); opset 13 has no node of its own for it.
                let x = self.value.clone();
                let constants = [("root_half", std::f32::consts::FRAC_1_SQRT_2), ("one", 1.0), ("half", 0.5)];
                let [root_half, one, half] = constants.map(|(name, value)| self.scalar(&parameter(name), value));
                self.node("Mul", &[&root_half]);
                self.node("Erf", &[]);
                self.node("Add", &[&one]);
                self.node("Mul", &[&half]);
                self.node("Mul", &[&x]);
            }
        }
    }

    /// A constant; returns its name.
    fn scalar(&mut self, name: &str, value: f32) -> String {
        self.initializers.push(float_tensor(name, &[], &[value]));
        name.to_owned()
    }

    /// Rows of another shape.
    fn reshape(&mut self, name: &str, shape: &[usize]) {
        // 0 keeps the number of rows, -1 takes what is left.
        let sizes = shape.iter().map(|n| if *n == WIDTH { -1 } else { *n as i64 });
        let shape: Vec<i64> = [0].into_iter().chain(sizes).collect();
        self.initializers.push(int_tensor(name, &shape));
        self.node("Reshape", &[name]);
    }

    /// The mean over an axis, which keeps a length of 1.
    fn mean(&mut self, axis: u64) {
        self.node_with("ReduceMean", &[], &[("axes", Attribute::Ints(vec![axis])), ("keepdims", Attribute::Int(1))]);
    }

    /// Appends a node from the current value and these parameters to the next value.
    fn node(&mut self, op: &str, parameters: &[&str]) {
        self.node_with(op, parameters, &[]);
    }

    fn node_with(&mut self, op: &str, parameters: &[&str], attributes: &[(&str, Attribute)]) {
        let output = format!("value{}", self.nodes.len());
        let inputs: Vec<&str> = [self.value.as_str()].into_iter().chain(parameters.iter().copied()).collect();
        self.nodes.push(node(op, &inputs, &[&output], attributes));
        self.value = output;
    }
}

/// In a shape: what is left.
const WIDTH: usize = usize::MAX;
