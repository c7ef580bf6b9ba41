//! A trained policy for use outside this program: `policy.safetensors`, `policy.json` and `policy.onnx`.

use std::fs;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::run_dir::write_atomic;
use hotfire_core::tensors::shaped_arrays_to_bytes;
use hotfire_nn::InputShape;
use hotfire_nn::export::{ExportLayer, onnx, parameter_name, parameters};
use serde_json::{Value, json};

use crate::Head;

/// A feed-forward policy, from an encoded observation to logits or means.
#[derive(Clone, Debug)]
pub struct PolicyExport {
    /// Shape of an encoded observation.
    pub input: InputShape,
    /// The network.
    pub layers: Vec<ExportLayer>,
    /// What its output means.
    pub head: Head,
    /// An encoded observation, and the output that the network gives for it: a check for those who rebuild it.
    pub example: (Vec<f32>, Vec<f32>),
}

impl PolicyExport {
    /// Writes the three files below `dir` and returns their paths. `context` is added to the JSON.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write(&self, dir: &Path, context: &[(&str, Value)]) -> Result<Vec<PathBuf>, CoreError> {
        fs::create_dir_all(dir).map_err(CoreError::io(dir, "make"))?;
        let (name, output) = match &self.head {
            Head::Categorical { sizes, start } => ("logits", json!({ "sizes": sizes, "start": start })),
            Head::Gaussian { low, high } => ("means", json!({ "low": finite(low), "high": finite(high) })),
        };
        let input = match self.input {
            InputShape::Flat(len) => json!([len]),
            InputShape::Image(shape) => json!(shape),
        };
        let mut description = json!({
            "format": 1,
            "input": { "name": "observation", "shape": input },
            "layers": self.layers.iter().enumerate().map(|(l, layer)| describe(l, layer)).collect::<Vec<_>>(),
            "output": { "name": name, "actions": output },
            "example": { "input": self.example.0, "output": self.example.1 },
        });
        for (key, value) in context {
            description[*key] = value.clone();
        }
        let arrays = shaped_arrays_to_bytes(&parameters(&self.layers))
            .map_err(|problem| CoreError::Failed(format!("{}: {problem}", dir.display())))?;
        let mut text = serde_json::to_string_pretty(&description).expect("a description always serializes");
        text.push('\n');
        let model = onnx(&self.layers, self.input.len(), self.head.outputs(), name);
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

fn describe(l: usize, layer: &ExportLayer) -> Value {
    let parameter = |name| parameter_name(l, name);
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
    }
}
