//! A trained policy for use outside this program: `policy.safetensors`, `policy.json` and `policy.onnx`.

use std::fs;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::run_dir::write_atomic;
use hotfire_core::tensors::shaped_arrays_to_bytes;
use hotfire_nn::InputShape;
use hotfire_nn::export::{ExportLayer, onnx, parameter_name, parameters, state_len, stream_name};
use serde_json::{Value, json};

/// A policy, from an encoded observation to what actions are taken from.
#[derive(Clone, Debug)]
pub struct PolicyExport {
    /// Shape of an encoded observation.
    pub input: InputShape,
    /// The network.
    pub layers: Vec<ExportLayer>,
    /// What its output means.
    pub output: ExportOutput,
    /// A check for those who rebuild it.
    pub example: ExportExample,
}

/// What a policy's output means.
#[derive(Clone, Debug)]
pub enum ExportOutput {
    /// Logits of one choice after the other; greedy is the largest of each.
    Logits {
        /// Number of alternatives of each choice.
        sizes: Vec<usize>,
        /// The least action.
        start: i32,
    },
    /// Means of a Gaussian; greedy are the means, clipped to the bounds.
    Means {
        /// `[A]`
        low: Vec<f32>,
        /// `[A]`
        high: Vec<f32>,
    },
    /// A value for each action; greedy is the largest.
    Values {
        /// Number of actions.
        actions: usize,
        /// The least action.
        start: i32,
    },
    /// The action itself, within its bounds.
    Actions {
        /// `[A]`
        low: Vec<f32>,
        /// `[A]`
        high: Vec<f32>,
    },
}

/// An encoded observation and what the network makes of it.
#[derive(Clone, Debug)]
pub struct ExportExample {
    /// The observation.
    pub input: Vec<f32>,
    /// The output for it.
    pub output: Vec<f32>,
    /// What a memory holds before and after, where there is one.
    pub states: Option<(Vec<f32>, Vec<f32>)>,
}

impl ExportOutput {
    /// Its name, its width, and what else there is to say about it.
    fn describe(&self) -> (&'static str, usize, Value) {
        match self {
            Self::Logits { sizes, start } => ("logits", sizes.iter().sum(), json!({ "sizes": sizes, "start": start })),
            Self::Means { low, high } => ("means", low.len(), json!({ "low": finite(low), "high": finite(high) })),
            Self::Values { actions, start } => ("q_values", *actions, json!({ "sizes": [actions], "start": start })),
            Self::Actions { low, high } => ("actions", low.len(), json!({ "low": low, "high": high })),
        }
    }
}

impl PolicyExport {
    /// Writes the three files below `dir` and returns their paths. `context` is added to the JSON.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write(&self, dir: &Path, context: &[(&str, Value)]) -> Result<Vec<PathBuf>, CoreError> {
        fs::create_dir_all(dir).map_err(CoreError::io(dir, "make"))?;
        let (name, outputs, actions) = self.output.describe();
        let input = match self.input {
            InputShape::Flat(len) => json!([len]),
            InputShape::Image(shape) => json!(shape),
        };
        let mut example = json!({ "input": self.example.input, "output": self.example.output });
        if let Some((state, next)) = &self.example.states {
            example["state"] = json!(state);
            example["next_state"] = json!(next);
        }
        let mut description = json!({
            "format": 1,
            "input": { "name": "observation", "shape": input },
            "layers": describe("", &self.layers),
            "output": { "name": name, "actions": actions },
            "example": example,
        });
        if let Some(units) = state_len(&self.layers) {
            description["state"] = json!({ "input": "state", "output": "next_state", "units": units });
        }
        for (key, value) in context {
            description[*key] = value.clone();
        }
        let arrays = shaped_arrays_to_bytes(&parameters(&self.layers))
            .map_err(|problem| CoreError::Failed(format!("{}: {problem}", dir.display())))?;
        let mut text = serde_json::to_string_pretty(&description).expect("a description always serializes");
        text.push('\n');
        let model = onnx(&self.layers, self.input.len(), outputs, name);
        let files = [("policy.safetensors", arrays), ("policy.json", text.into_bytes()), ("policy.onnx", model)];
        files
            .into_iter()
            .map(|(name, content)| {
                let path = dir.join(name);
                write_atomic(&path, &content)?;
                Ok(path)
            })
            .collect()
    }
}

/// JSON has no infinities: an absent bound is `null`.
fn finite(bounds: &[f32]) -> Vec<Option<f32>> {
    bounds.iter().map(|bound| bound.is_finite().then_some(*bound)).collect()
}

fn describe(stream: &str, layers: &[ExportLayer]) -> Vec<Value> {
    let describe_one = |(l, layer): (usize, &ExportLayer)| {
        let parameter = |name| parameter_name(stream, l, name);
        match layer {
            ExportLayer::Normalize { clip, .. } => {
                json!({ "type": "normalize", "mean": parameter("mean"), "scale": parameter("scale"), "clip": clip })
            }
            ExportLayer::Image(shape) => json!({ "type": "image", "shape": shape }),
            ExportLayer::Conv { stride, activation, .. } => json!({
                "type": "conv",
                "weight": parameter("weight"),
                "bias": parameter("bias"),
                "stride": stride,
                "activation": activation,
            }),
            ExportLayer::Flatten => json!({ "type": "flatten" }),
            ExportLayer::Dense { activation, .. } => json!({
                "type": "dense",
                "weight": parameter("weight"),
                "bias": parameter("bias"),
                "activation": activation,
            }),
            ExportLayer::LayerNorm { epsilon, activation, .. } => json!({
                "type": "layer_norm",
                "scale": parameter("scale"),
                "offset": parameter("offset"),
                "epsilon": epsilon,
                "activation": activation,
            }),
            ExportLayer::Gru { .. } => json!({
                "type": "gru",
                "input": parameter("input"),
                "input_bias": parameter("input_bias"),
                "hidden": parameter("hidden"),
                "hidden_bias": parameter("hidden_bias"),
            }),
            ExportLayer::Dueling { value, advantage, actions } => json!({
                "type": "dueling",
                "value": describe(&stream_name(stream, l, "value"), value),
                "advantage": describe(&stream_name(stream, l, "advantage"), advantage),
                "actions": actions,
            }),
            ExportLayer::Expectation { softmax, .. } => {
                json!({ "type": "expectation", "values": parameter("values"), "softmax": softmax })
            }
            ExportLayer::Squash { .. } => {
                json!({ "type": "squash", "low": parameter("low"), "high": parameter("high") })
            }
        }
    };
    layers.iter().enumerate().map(describe_one).collect()
}
