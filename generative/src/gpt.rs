//! GPT: a causal Transformer as a language model.
//!
//! Radford et al. 2019 ("Language models are unsupervised multitask learners") in the form of nanoGPT: normalisation
//! before each sublayer, GELU, an output head that shares the embedding's weights, residual projections initialised
//! smaller with depth. Positions are learned, or rotary (Su et al. 2021, <https://arxiv.org/abs/2104.09864>). Departures:
//! dropout acts on embeddings and residual branches, not on attention weights; queries, keys and values are three
//! matrices instead of one.

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::attention::KeyValueCache;
use hotfire_nn::init::normal;
use hotfire_nn::ops::{self, AttentionMask};
use hotfire_nn::transformer::{BlockConfig, Dropout, LayerNorm, NormPlace, TransformerBlock};
use serde::{Deserialize, Serialize};

use crate::registry::ModelSpec;
use crate::text::{
    AttentionMaps, Corpus, Learner, NextToken, OptimizerSetting, Split, TextConfig, Tokenizer, check_vocabulary,
    describe, generate, words, write_sample,
};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "gpt",
    summary: "causal Transformer language model over characters, words or subwords",
    source: "Radford et al. 2019",
    make: |document, setting| Ok(Box::new(Gpt::from_config(document, setting)?)),
};

/// How a Transformer knows where a token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// A learned vector for each position, added to the token's.
    #[default]
    Learned,
    /// Queries and keys are turned by their position.
    Rotary,
}

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GptConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads, which divide the width.
    pub heads: usize,
    /// Channels of a token.
    pub width: usize,
    /// Largest number of tokens that attend to each other.
    pub block: usize,
    /// `learned` or `rotary`.
    pub positions: Positions,
    /// Whether linear maps and normalisations have biases.
    pub bias: bool,
    /// Probability of dropping an element while training.
    pub dropout: f64,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    pub min_learning_rate: f64,
    /// Steps over which the learning rate rises.
    pub warmup: u64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Adam's second decay.
    pub beta_2: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
}

impl Default for GptConfig {
    fn default() -> Self {
        Self {
            layers: 4,
            heads: 4,
            width: 128,
            block: 64,
            positions: Positions::Learned,
            bias: false,
            dropout: 0.0,
            learning_rate: 1e-3,
            min_learning_rate: 1e-4,
            warmup: 100,
            weight_decay: 0.1,
            beta_2: 0.99,
            max_grad_norm: 1.0,
        }
    }
}

impl GptConfig {
    fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        for (key, value) in
            [("layers", self.layers), ("heads", self.heads), ("width", self.width), ("block", self.block)]
        {
            if value == 0 {
                return Err(document.out_of_range(&format!("model.{key}"), "at least 1", value));
            }
        }
        let even = if self.positions == Positions::Rotary { 2 } else { 1 };
        if !self.width.is_multiple_of(self.heads * even) {
            let expected = format!("a multiple of {} for {} heads", self.heads * even, self.heads);
            return Err(document.out_of_range("model.width", expected, self.width));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(document.out_of_range("model.dropout", "a number from 0 to below 1", self.dropout));
        }
        self.optimizer().check(document)
    }

    fn optimizer(&self) -> OptimizerSetting {
        OptimizerSetting {
            learning_rate: self.learning_rate,
            min_learning_rate: self.min_learning_rate,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            beta_2: self.beta_2,
            max_grad_norm: self.max_grad_norm,
        }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct GptNet {
    /// Vector of each token, `[V, C]`, which is the output head too.
    tokens: Param<Tensor<2>>,
    /// Vector of each position, `[block, C]`.
    positions: Option<Param<Tensor<2>>>,
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
}

impl GptNet {
    /// A network with random weights.
    pub fn new(config: &GptConfig, vocab_size: usize, rng: &mut StreamRng, device: &Device) -> Self {
        const STD: f64 = 0.02;
        let table = |rows, rng: &mut StreamRng| Param::from_tensor(normal([rows, config.width], STD, rng, device));
        let rotary = config.positions == Positions::Rotary;
        let block = BlockConfig {
            width: config.width,
            heads: config.heads,
            hidden: 4 * config.width,
            bias: config.bias,
            rotary,
            norm: NormPlace::Before,
            epsilon: 1e-5,
            std: STD,
            residual_std: STD / (2.0 * config.layers as f64).sqrt(),
        };
        Self {
            tokens: table(vocab_size, rng),
            positions: (!rotary).then(|| table(config.block, rng)),
            blocks: (0..config.layers).map(|_| TransformerBlock::new(&block, rng, device)).collect(),
            norm: LayerNorm::new(config.width, config.bias, 1e-5, device),
        }
    }

    /// Vectors of the tokens `ids: [B, T]`, of which the first stands at position `start`.
    fn embed(&self, ids: Tensor<2, Int>, start: usize) -> Tensor<3> {
        let length = ids.dims()[1];
        let x = ops::embedding(self.tokens.val(), ids);
        match &self.positions {
            Some(positions) => x + positions.val().narrow(0, start, length).unsqueeze(),
            None => x,
        }
    }

    /// Logits `[B, T, V]` of the token after each of `ids: [B, T]`. With caches (one a block) the ids are those after
    /// the ones that the caches have seen.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        dropout: &mut Dropout,
        mut caches: Option<&mut [KeyValueCache]>,
    ) -> Tensor<3> {
        let start = caches.as_ref().and_then(|caches| caches.first()).map_or(0, KeyValueCache::len);
        let mut x = dropout.apply(self.embed(ids, start));
        for (i, block) in self.blocks.iter().enumerate() {
            let cache = caches.as_mut().map(|caches| &mut caches[i]);
            x = block.forward(x, AttentionMask::CAUSAL, dropout, cache);
        }
        let [batch, length, width] = x.dims();
        let x: Tensor<2> = self.norm.forward(x).reshape([batch * length, width]);
        let tokens = self.tokens.val();
        let vocab_size = tokens.dims()[0];
        x.matmul(tokens.transpose()).reshape([batch, length, vocab_size])
    }

    /// The attention weights `[H, T, T]` of each block on one sequence.
    pub fn attention_weights(&self, ids: Tensor<2, Int>) -> Vec<Tensor<3>> {
        let mut x = self.embed(ids, 0);
        let mut maps = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            maps.push(block.attention_weights(&x, AttentionMask::CAUSAL).squeeze_dim(0));
            x = block.forward(x, AttentionMask::CAUSAL, &mut Dropout::off(), None);
        }
        maps
    }
}

/// Sequences of a batch, without another choice in `[train]`.
const BATCH: usize = 12;

/// GPT as a task.
pub struct Gpt {
    config: GptConfig,
    seed: u64,
    batch_size: usize,
    device: Device,
    corpus: Corpus,
    learner: Learner<GptNet>,
}

impl Gpt {
    /// Reads and checks `[model]` and `[data]`, and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or a text that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: GptConfig = document.section("model")?;
        config.check(document)?;
        let data = TextConfig::from_document(document)?;
        let corpus = Corpus::read(&data).map_err(|error| document.invalid("data.files", error))?;
        for (name, split) in [("training", &corpus.train), ("validation", &corpus.validation)] {
            let found = split.ids.len();
            if found <= config.block && !(found == 0 && name == "validation") {
                let expected = format!("more than {} tokens (model.block) of {name} text", config.block);
                return Err(document.out_of_range("data.files", expected, found));
            }
        }
        let device = setting.device.clone().autodiff();
        let vocab_size = corpus.tokenizer.vocab_size();
        let net = GptNet::new(&config, vocab_size, &mut stream(setting.seed, "network", 0), &device);
        Ok(Self {
            seed: setting.seed,
            batch_size: setting.batch_size_or(BATCH),
            device,
            learner: Learner::new(net, &config.optimizer(), setting.total_steps),
            corpus,
            config,
        })
    }

    /// The mean cross entropy of windows of `length + 1` tokens.
    fn loss(&self, net: &GptNet, windows: &[&[u32]], dropout: &mut Dropout, device: &Device) -> Tensor<1> {
        let length = windows[0].len() - 1;
        let ids: Vec<i32> = windows.iter().flat_map(|w| w[..length].iter().map(|id| *id as i32)).collect();
        let targets: Vec<i64> = windows.iter().flat_map(|w| w[1..].iter().map(|id| i64::from(*id))).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [windows.len(), length]), device);
        let logits = net.forward(ids, dropout, None);
        let vocab_size = logits.dims()[2];
        ops::cross_entropy(logits.reshape([targets.len(), vocab_size]), &targets)
    }

    /// The loss over all of a text, cut into windows of the block's length.
    fn measure(&self, name: &str, split: &Split) -> Metrics {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let block = self.config.block;
        let windows: Vec<&[u32]> = (0..split.ids.len() - 1)
            .step_by(block)
            .map(|at| &split.ids[at..(at + block + 1).min(split.ids.len())])
            .collect();
        let mut nats = 0.0;
        // The last window may be shorter, so it goes alone.
        let (last, full) = windows.split_last().expect("a split is longer than a block");
        for batch in full.chunks(64).chain([std::slice::from_ref(last)]) {
            let predicted: usize = batch.iter().map(|window| window.len() - 1).sum();
            if predicted > 0 {
                let loss = self.loss(&net, batch, &mut Dropout::off(), &device);
                nats += f64::from(loss.into_scalar::<f32>()) * predicted as f64;
            }
        }
        let predicted = split.ids.len() - 1;
        let first = self.corpus.tokenizer.decode(&split.ids[..1]).chars().count();
        describe(name, nats, predicted, split.text.chars().count() - first)
    }
}

impl Task for Gpt {
    fn step(&self) -> u64 {
        self.learner.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let (block, step) = (self.config.block, self.learner.step());
        // The position in the data is a function of the step, so a resumed run meets the same batches.
        let mut rng = stream(self.seed, "batches", step);
        let starts = (self.corpus.train.ids.len() - block) as u32;
        let windows: Vec<&[u32]> = (0..self.batch_size)
            .map(|_| {
                let at = rng.below(starts) as usize;
                &self.corpus.train.ids[at..at + block + 1]
            })
            .collect();
        let mut dropout = Dropout::new(self.config.dropout, stream(self.seed, "dropout", step));
        let loss = self.loss(self.learner.net(), &windows, &mut dropout, &self.device);
        let mut metrics = Metrics::new();
        self.learner.update(loss, &mut metrics);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let (name, split) = self.corpus.measured();
        Ok(Evaluation { eval: None, metrics: self.measure(name, split) })
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let seed = self.seed;
        write_sample(self, &dir.join("sample.txt"), seed)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to, &self.corpus.tokenizer)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |problem| CoreError::Checkpoint { path: from.path().join("tokenizer.json"), problem };
        let mut learner = self.learner.clone();
        let tokenizer = learner.load(from)?;
        check_vocabulary(from, tokenizer.vocab_size(), self.corpus.tokenizer.vocab_size())?;
        if tokenizer.to_json() != self.corpus.tokenizer.to_json() {
            self.corpus = self.corpus.retokenized(tokenizer).map_err(misfit)?;
        }
        self.learner = learner;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "train_loss", label: "loss (nats a token)".into(), threshold: None }
    }
}

impl Model for Gpt {
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut reader = Reader {
            net: self.learner.net().valid(),
            caches: vec![KeyValueCache::default(); self.config.layers],
            block: self.config.block,
            device: self.device.clone().inner(),
        };
        generate(request, &self.corpus.tokenizer, &mut reader)
    }

    fn attention(&self, text: &str) -> Result<AttentionMaps, CoreError> {
        let tokenizer = &self.corpus.tokenizer;
        let ids = tokenizer.encode(text).map_err(CoreError::Usage)?;
        if ids.is_empty() || ids.len() > self.config.block {
            let problem =
                format!("expected 1 to {} tokens (the model's block), found {}", self.config.block, ids.len());
            return Err(CoreError::Usage(problem));
        }
        let data = TensorData::new(ids.iter().map(|id| *id as i32).collect::<Vec<_>>(), [1, ids.len()]);
        let ids_tensor = Tensor::from_data(data, &self.device.clone().inner());
        let mut maps = AttentionMaps::new(tokenizer, &ids, self.learner.net().valid().attention_weights(ids_tensor));
        if let Tokenizer::Word { .. } = tokenizer {
            // A word that is not in the dictionary is named too.
            maps.name_tokens(words(text));
        }
        Ok(maps)
    }
}

/// The network with what it has read.
struct Reader {
    net: GptNet,
    caches: Vec<KeyValueCache>,
    block: usize,
    device: Device,
}

impl NextToken for Reader {
    fn restart(&mut self) {
        self.caches.fill(KeyValueCache::default());
    }

    fn read(&mut self, ids: &[u32]) -> Vec<f32> {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let length = ids.len();
        let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &self.device);
        let logits = self.net.forward(ids, &mut Dropout::off(), Some(&mut self.caches));
        let last: Tensor<1> = logits.narrow(1, length - 1, 1).flatten(0, 2);
        last.into_data().try_into_vec().expect("logits are 32-bit floats")
    }

    fn context(&self) -> Option<usize> {
        Some(self.block)
    }
}
