//! BERT weights in Hugging Face's form: a folder with `config.json`, `model.safetensors` and `tokenizer.json` or
//! `vocab.txt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::stream;
use hotfire_nn::transformer::{LayerNorm, Projection};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::GenerativeError;
use crate::embedder::Embedder;
use crate::encoder::{Encoder, EncoderConfig, Heads, Special};
use crate::text::Tokenizer;

/// What a folder holds.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The encoder's shape.
    pub config: EncoderConfig,
    /// The encoder.
    pub encoder: Encoder,
    /// The pre-training heads, where the file has them all.
    pub heads: Option<Heads>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Its special tokens.
    pub special: Special,
    /// The longest sentence in tokens, with the special ones.
    pub max_length: usize,
}

/// `[CLS]`, a token and `[SEP]`.
const SHORTEST: usize = 3;

/// `config.json`, as far as it matters.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    model_type: String,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
}

fn gelu() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

fn epsilon() -> f64 {
    1e-12
}

impl Pretrained {
    /// Reads a folder; the network lies on `device`.
    ///
    /// # Errors
    /// If a file is missing or malformed, the network is of another kind, or tensors are missing, left over, or of
    /// another shape: the message names file and tensor.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, GenerativeError> {
        let config = read_config(&dir.join("config.json"))?;
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(GenerativeError::io(&path, "read"))?;
        let mut weights = Weights::read(&path, &bytes)?;
        // Every parameter is replaced, so the seed does not matter.
        let mut rng = stream(0, "replaced", 0);
        let mut encoder = Encoder::new(&config, &mut rng, device);
        weights.encoder(&mut encoder, &config, device)?;
        let heads = if weights.has("cls.predictions.transform.dense.weight") && weights.has("pooler.dense.weight") {
            let mut heads = Heads::new(&config, &mut rng, device);
            weights.heads(&mut heads, &config, device)?;
            Some(heads)
        } else {
            None
        };
        weights.finish()?;
        let tokenizer_path = [dir.join("tokenizer.json"), dir.join("vocab.txt")]
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| GenerativeError::unusable(dir, "expected tokenizer.json or vocab.txt, found neither"))?;
        let tokenizer = Tokenizer::load(&tokenizer_path)?;
        let unusable = |problem: String| GenerativeError::unusable(&tokenizer_path, problem);
        if tokenizer.vocab_size() != config.vocab_size {
            let (expected, found) = (config.vocab_size, tokenizer.vocab_size());
            return Err(unusable(format!("expected {expected} tokens, as config.json says, found {found}")));
        }
        let special = Special::of(&tokenizer).map_err(unusable)?;
        let max_length = tokenizer.max_length().unwrap_or(config.block).min(config.block);
        if max_length < SHORTEST {
            return Err(unusable(format!("truncation.max_length: expected at least {SHORTEST}, found {max_length}")));
        }
        Ok(Self { config, encoder, heads, tokenizer, special, max_length })
    }

    /// The embedder of sentences.
    pub fn into_embedder(self, device: Device) -> Embedder {
        Embedder::new(self.encoder, self.tokenizer, self.special, self.max_length, device)
    }
}

fn read_config(path: &Path) -> Result<EncoderConfig, GenerativeError> {
    let text = std::fs::read(path).map_err(GenerativeError::io(path, "read"))?;
    let unusable = |problem: String| GenerativeError::unusable(path, problem);
    let file: ConfigFile = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    for (key, found, expected) in [
        ("model_type", &file.model_type, "bert"),
        ("hidden_act", &file.hidden_act, "gelu"),
        ("position_embedding_type", &file.position_embedding_type, "absolute"),
    ] {
        if found != expected {
            return Err(unusable(format!("{key}: expected {expected:?}, found {found:?}")));
        }
    }
    let (width, heads) = (file.hidden_size, file.num_attention_heads);
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(unusable(format!("num_attention_heads: expected a divisor of hidden_size {width}, found {heads}")));
    }
    if file.max_position_embeddings < SHORTEST {
        let found = file.max_position_embeddings;
        return Err(unusable(format!("max_position_embeddings: expected at least {SHORTEST}, found {found}")));
    }
    Ok(EncoderConfig {
        vocab_size: file.vocab_size,
        layers: file.num_hidden_layers,
        heads,
        width,
        hidden: file.intermediate_size,
        block: file.max_position_embeddings,
        epsilon: file.layer_norm_eps,
    })
}

/// The tensors of a file that have not been taken yet.
struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Weights {
    fn read(path: &Path, bytes: &[u8]) -> Result<Self, GenerativeError> {
        let unusable = |problem: String| GenerativeError::unusable(path, problem);
        let file = SafeTensors::deserialize(bytes).map_err(|error| unusable(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            // Buffers that are no parameters.
            if name.ends_with("position_ids") {
                continue;
            }
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => {
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
                }
                Dtype::BF16 => view
                    .data()
                    .chunks_exact(2)
                    .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
                    .collect(),
                other => return Err(unusable(format!("{name}: expected type F32 or BF16, found {other:?}"))),
            };
            let name = name.strip_prefix("bert.").unwrap_or(name).to_owned();
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Self { path: path.to_path_buf(), tensors })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn take<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, GenerativeError> {
        // Early checkpoints call gain and offset of a normalisation gamma and beta.
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let problem = match self.tensors.remove(name).or_else(|| self.tensors.remove(&old)) {
            Some((found, values)) if found == shape => {
                return Ok(Tensor::from_data(TensorData::new(values, shape), device));
            }
            Some((found, _)) => format!("{name}: expected shape {shape:?}, found {found:?}"),
            None => format!("{name} is missing, expected with shape {shape:?}"),
        };
        Err(GenerativeError::unusable(&self.path, problem))
    }

    /// A dense layer, whose weight is stored as `[outputs, inputs]`.
    fn projection(&mut self, to: &mut Projection, name: &str, device: &Device) -> Result<(), GenerativeError> {
        let [inputs, outputs] = to.weight.dims();
        let weight = self.take(&format!("{name}.weight"), [outputs, inputs], device)?;
        // A copy in the new order, so that each use need not make one.
        let values: Vec<f32> = weight.transpose().into_data().try_into_vec().expect("weights are 32-bit floats");
        to.weight = Param::from_tensor(Tensor::from_data(TensorData::new(values, [inputs, outputs]), device));
        to.bias = Some(Param::from_tensor(self.take(&format!("{name}.bias"), [outputs], device)?));
        Ok(())
    }

    fn norm(&mut self, to: &mut LayerNorm, name: &str, device: &Device) -> Result<(), GenerativeError> {
        let width = to.weight.dims();
        to.weight = Param::from_tensor(self.take(&format!("{name}.weight"), width, device)?);
        to.bias = Some(Param::from_tensor(self.take(&format!("{name}.bias"), width, device)?));
        Ok(())
    }

    fn encoder(&mut self, to: &mut Encoder, config: &EncoderConfig, device: &Device) -> Result<(), GenerativeError> {
        let mut table = |name: &str, rows| {
            self.take(&format!("embeddings.{name}_embeddings.weight"), [rows, config.width], device)
                .map(Param::from_tensor)
        };
        to.words = table("word", config.vocab_size)?;
        to.positions = table("position", config.block)?;
        to.segments = table("token_type", 2)?;
        self.norm(&mut to.norm, "embeddings.LayerNorm", device)?;
        for (i, block) in to.blocks.iter_mut().enumerate() {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            self.projection(&mut block.attention.query, &name("attention.self.query"), device)?;
            self.projection(&mut block.attention.key, &name("attention.self.key"), device)?;
            self.projection(&mut block.attention.value, &name("attention.self.value"), device)?;
            self.projection(&mut block.attention.output, &name("attention.output.dense"), device)?;
            self.norm(&mut block.attention_norm, &name("attention.output.LayerNorm"), device)?;
            self.projection(&mut block.expand, &name("intermediate.dense"), device)?;
            self.projection(&mut block.contract, &name("output.dense"), device)?;
            self.norm(&mut block.network_norm, &name("output.LayerNorm"), device)?;
        }
        Ok(())
    }

    fn heads(&mut self, to: &mut Heads, config: &EncoderConfig, device: &Device) -> Result<(), GenerativeError> {
        self.projection(&mut to.pooler, "pooler.dense", device)?;
        self.projection(&mut to.transform, "cls.predictions.transform.dense", device)?;
        self.norm(&mut to.transform_norm, "cls.predictions.transform.LayerNorm", device)?;
        to.bias = Param::from_tensor(self.take("cls.predictions.bias", [config.vocab_size], device)?);
        if self.has("cls.seq_relationship.weight") {
            self.projection(&mut to.next, "cls.seq_relationship", device)?;
        }
        // Copies of tensors that are taken already.
        self.tensors.remove("cls.predictions.decoder.weight");
        self.tensors.remove("cls.predictions.decoder.bias");
        Ok(())
    }

    /// Refuses tensors that are left over; a pooler without pre-training heads is one that sentence encoders carry
    /// along unused.
    fn finish(mut self) -> Result<(), GenerativeError> {
        self.tensors.retain(|name, _| !name.starts_with("pooler.dense."));
        let Some((name, (shape, _))) = self.tensors.first_key_value() else { return Ok(()) };
        let more = match self.tensors.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let problem = format!("expected the tensors of a BERT encoder, found {name} of shape {shape:?}{more} besides");
        Err(GenerativeError::unusable(&self.path, problem))
    }
}
