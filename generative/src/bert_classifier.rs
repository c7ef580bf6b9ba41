//! Classification of sentences with a BERT encoder, from pre-trained weights or from scratch.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>, section 4.1: a linear map of the first token's vector, and
//! all weights are trained. Each text file is a class, named by the file; its sentences are the examples.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter, open_latest};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::run_dir::RunDir;
use hotfire_core::seed::stream;
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::ops;
use hotfire_nn::transformer::{Dropout, Projection};
use serde::{Deserialize, Serialize};

use crate::bert::BertConfig;
use crate::embedder::Embedder;
use crate::encoder::{Batch, BertNet, Encoder, Heads, Special};
use crate::huggingface::Pretrained;
use crate::registry::ModelSpec;
use crate::sampling::Options;
use crate::text::{Learner, OptimizerSetting, TextConfig, Tokenizer, check_vocabulary, read_text, sentences};
use crate::{GenerativeError, Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "bert-classifier",
    summary: "sentence classifier on a BERT encoder, fine-tuned or from scratch",
    source: "Devlin et al. 2019, arXiv:1810.04805",
    make: |document, setting| Ok(Box::new(BertClassifier::from_config(document, setting)?)),
};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The run of a `bert`, or a folder in Hugging Face's form, whose encoder and tokenizer to start from; without one
    /// an encoder of `bert`'s default shape starts from random weights.
    pub pretrained: Option<PathBuf>,
    /// Longer sentences are cut to this number of tokens.
    pub max_tokens: usize,
    /// Shorter sentences, in words, are left out.
    pub min_words: usize,
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

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            pretrained: None,
            max_tokens: 64,
            min_words: 4,
            dropout: 0.1,
            learning_rate: 1e-4,
            min_learning_rate: 0.0,
            warmup: 20,
            weight_decay: 0.01,
            beta_2: 0.99,
            max_grad_norm: 1.0,
        }
    }
}

impl ClassifierConfig {
    fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        for (key, value, least) in [("max_tokens", self.max_tokens, 3), ("min_words", self.min_words, 1)] {
            if value < least {
                return Err(document.out_of_range(&format!("model.{key}"), format!("at least {least}"), value));
            }
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

/// Encoder and class head.
#[derive(Module, Debug)]
pub struct ClassifierNet {
    encoder: Encoder,
    /// `[C, classes]`
    classes: Projection,
}

impl ClassifierNet {
    /// Logits `[B, classes]`.
    fn forward(&self, batch: &Batch, dropout: &mut Dropout) -> Tensor<2> {
        let x = self.encoder.forward(batch, dropout);
        self.classes.forward(dropout.apply(x.narrow(1, 0, 1).squeeze_dim::<2>(1)))
    }
}

/// A sentence's tokens and its class.
type Example = (Vec<u32>, i64);

/// Sentences with their classes, and what the network sees of them.
struct Examples {
    sentences: Vec<(String, i64)>,
    examples: Vec<Example>,
}

impl Examples {
    fn new(sentences: Vec<(String, i64)>, tokenizer: &Tokenizer, max_tokens: usize) -> Result<Self, String> {
        let encode = |(sentence, class): &(String, i64)| {
            let mut ids = tokenizer.encode(sentence)?;
            ids.truncate(max_tokens - 2);
            Ok::<_, String>((ids, *class))
        };
        Ok(Self { examples: sentences.iter().map(encode).collect::<Result<_, _>>()?, sentences })
    }
}

/// Sentences of a batch, without another choice in `[train]`.
const BATCH: usize = 16;

/// The classifier as a task.
pub struct BertClassifier {
    config: ClassifierConfig,
    seed: u64,
    batch_size: usize,
    device: Device,
    tokenizer: Tokenizer,
    special: Special,
    max_tokens: usize,
    classes: Vec<String>,
    train: Examples,
    validation: Examples,
    learner: Learner<ClassifierNet>,
}

impl BertClassifier {
    /// Reads and checks `[model]` and `[data]`, and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range, and texts or weights that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: ClassifierConfig = document.section("model")?;
        config.check(document)?;
        let data = TextConfig::of_word_pieces(document)?;
        if data.files.len() < 2 || data.validation == 0.0 {
            let found = format!("{} files with validation = {}", data.files.len(), data.validation);
            return Err(document.out_of_range(
                "data.files",
                "two files or more, one a class, and a validation share",
                found,
            ));
        }
        let texts: Vec<String> = data
            .files
            .iter()
            .map(|path| read_text(path))
            .collect::<Result<_, _>>()
            .map_err(|error| document.invalid("data.files", error))?;
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for (class, (text, path)) in texts.iter().zip(&data.files).enumerate() {
            let mut found = sentences(text);
            found.retain(|sentence| sentence.split(' ').count() >= config.min_words);
            let kept = (found.len() as f64 * (1.0 - data.validation)) as usize;
            if kept == 0 || kept == found.len() {
                let problem =
                    format!("expected two sentences of {} words or more, found {}", config.min_words, found.len());
                return Err(document.invalid("data.files", GenerativeError::unusable(path, problem)));
            }
            let mut found = found.into_iter().map(|sentence| (sentence, class as i64));
            train.extend(found.by_ref().take(kept));
            validation.extend(found);
        }
        let device = setting.device.clone().autodiff();
        let tokenizer_key = if config.pretrained.is_some() { "model.pretrained" } else { "data.tokenizer_file" };
        let start = match &config.pretrained {
            Some(path) => {
                if data.tokenizer_file.is_some() {
                    let problem = "stands beside model.pretrained, which has its own tokenizer: expected one of them";
                    return Err(document.invalid("data.tokenizer_file", problem));
                }
                load_pretrained(path, &device).map_err(|error| document.invalid("model.pretrained", error))?
            }
            None => {
                let tokenizer = match &data.tokenizer_file {
                    Some(path) => {
                        Tokenizer::load(path).map_err(|error| document.invalid("data.tokenizer_file", error))?
                    }
                    None => {
                        let text: Vec<&str> = train.iter().map(|(sentence, _)| sentence.as_str()).collect();
                        Tokenizer::train(&data.setting(), &text.join("\n"))
                            .map_err(|error| document.invalid("data.files", error))?
                    }
                };
                let shape = BertConfig::default().encoder(tokenizer.vocab_size());
                let encoder = Encoder::new(&shape, &mut stream(setting.seed, "network", 0), &device);
                Start { encoder, tokenizer, width: shape.width, block: shape.block }
            }
        };
        let Start { encoder, tokenizer, width, block } = start;
        let special = Special::of(&tokenizer).map_err(|error| document.invalid(tokenizer_key, error))?;
        let max_tokens = config.max_tokens.min(block);
        let encoded = |sentences| {
            Examples::new(sentences, &tokenizer, max_tokens).map_err(|error| document.invalid("data.files", error))
        };
        let (train, validation) = (encoded(train)?, encoded(validation)?);
        let classes: Vec<String> = data
            .files
            .iter()
            .map(|path| path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned())
            .collect();
        let mut rng = stream(setting.seed, "classes", 0);
        let net =
            ClassifierNet { encoder, classes: Projection::new([width, classes.len()], true, 0.02, &mut rng, &device) };
        Ok(Self {
            seed: setting.seed,
            batch_size: setting.batch_size_or(BATCH),
            learner: Learner::new(net, &config.optimizer(), setting.total_steps),
            device,
            tokenizer,
            special,
            max_tokens,
            classes,
            train,
            validation,
            config,
        })
    }

    fn batch(&self, examples: &[&Example], device: &Device) -> (Batch, Vec<i64>) {
        let sequences: Vec<_> = examples.iter().map(|(ids, _)| self.special.wrap(ids, None)).collect();
        (Batch::new(&sequences, self.special.pad, device), examples.iter().map(|(_, class)| *class).collect())
    }
}

/// What fine-tuning starts from.
struct Start {
    encoder: Encoder,
    tokenizer: Tokenizer,
    width: usize,
    block: usize,
}

/// The encoder of a `bert` run or of a folder in Hugging Face's form.
fn load_pretrained(path: &Path, device: &Device) -> Result<Start, CoreError> {
    if path.join("config.json").exists() {
        let Pretrained { encoder, tokenizer, config, .. } = Pretrained::load(path, device)?;
        return Ok(Start { encoder, tokenizer, width: config.width, block: config.block });
    }
    let run = RunDir::open(path)?;
    let checkpoint = open_latest(&run.checkpoints())?
        .ok_or_else(|| CoreError::Usage(format!("{}: has no checkpoint yet", path.display())))?;
    let mut document = ConfigDocument::load(run.config(), &[])?;
    let name = document.take_tag("model", "name")?;
    if name != "bert" {
        return Err(CoreError::Usage(format!("{}: expected the run of a bert, found one of {name}", path.display())));
    }
    let config: BertConfig = document.section("model")?;
    let tokenizer = Tokenizer::from_json(&checkpoint.bytes("tokenizer.json")?)
        .map_err(|problem| CoreError::Checkpoint { path: checkpoint.path().join("tokenizer.json"), problem })?;
    let shape = config.encoder(tokenizer.vocab_size());
    let mut rng = stream(0, "replaced", 0);
    let net = BertNet { encoder: Encoder::new(&shape, &mut rng, device), heads: Heads::new(&shape, &mut rng, device) };
    let net = checkpoint.module("network.safetensors", net)?;
    Ok(Start { encoder: net.encoder, tokenizer, width: shape.width, block: shape.block })
}

impl Task for BertClassifier {
    fn step(&self) -> u64 {
        self.learner.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let step = self.learner.step();
        let mut rng = stream(self.seed, "batches", step);
        // Classes are drawn evenly, so that a long text does not outweigh a short one.
        let of_class: Vec<Vec<&Example>> = (0..self.classes.len())
            .map(|class| self.train.examples.iter().filter(|(_, c)| *c == class as i64).collect())
            .collect();
        let examples: Vec<&Example> = (0..self.batch_size)
            .map(|_| {
                let class = &of_class[rng.below(self.classes.len() as u32) as usize];
                class[rng.below(class.len() as u32) as usize]
            })
            .collect();
        let (batch, targets) = self.batch(&examples, &self.device);
        let mut dropout = Dropout::new(self.config.dropout, stream(self.seed, "dropout", step));
        let loss = ops::cross_entropy(self.learner.net().forward(&batch, &mut dropout), &targets);
        let mut metrics = Metrics::new();
        self.learner.update(loss, &mut metrics);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let mut order: Vec<&Example> = self.validation.examples.iter().collect();
        order.sort_by_key(|(ids, _)| ids.len());
        let mut nats = 0.0;
        let (mut right, mut of_class) = (vec![0usize; self.classes.len()], vec![0usize; self.classes.len()]);
        for examples in order.chunks(64) {
            let (batch, targets) = self.batch(examples, &device);
            let logits = net.forward(&batch, &mut Dropout::off());
            nats += f64::from(ops::cross_entropy(logits.clone(), &targets).into_scalar::<f32>()) * targets.len() as f64;
            let found: Vec<i64> =
                logits.argmax(1).flatten::<1>(0, 1).into_data().try_into_vec_as().expect("whole numbers");
            for (found, target) in found.iter().zip(&targets) {
                right[*target as usize] += usize::from(found == target);
                of_class[*target as usize] += 1;
            }
        }
        let total = order.len() as f64;
        let mut metrics = Metrics::new();
        metrics.push("val_loss", nats / total);
        metrics.push("val_accuracy", right.iter().sum::<usize>() as f64 / total);
        let recalls = right.iter().zip(&of_class).map(|(right, all)| *right as f64 / (*all).max(1) as f64);
        metrics.push("val_balanced_accuracy", recalls.sum::<f64>() / self.classes.len() as f64);
        metrics.push("val_majority_accuracy", *of_class.iter().max().expect("there are classes") as f64 / total);
        Ok(Evaluation { eval: None, metrics })
    }

    fn media(&mut self, _dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        Ok(Vec::new())
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to, &self.tokenizer)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |problem| CoreError::Checkpoint { path: from.path().join("tokenizer.json"), problem };
        let mut learner = self.learner.clone();
        let tokenizer = learner.load(from)?;
        check_vocabulary(from, tokenizer.vocab_size(), self.tokenizer.vocab_size())?;
        if tokenizer.to_json() != self.tokenizer.to_json() {
            let special = Special::of(&tokenizer).map_err(misfit)?;
            let encoded =
                |part: &Examples| Examples::new(part.sentences.clone(), &tokenizer, self.max_tokens).map_err(misfit);
            (self.train, self.validation) = (encoded(&self.train)?, encoded(&self.validation)?);
            (self.tokenizer, self.special) = (tokenizer, special);
        }
        self.learner = learner;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "train_loss", label: "loss (nats)".into(), threshold: None }
    }
}

impl Model for BertClassifier {
    /// The probability of each class for the sentence of the prompt.
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        Options::of(request).finish()?;
        let Some(prompt) = request.prompt.as_deref() else {
            return Err(CoreError::Usage("expected --prompt with the sentence to classify".into()));
        };
        let mut ids = self.tokenizer.encode(prompt).map_err(|p| CoreError::Usage(format!("--prompt: {p}")))?;
        ids.truncate(self.max_tokens - 2);
        let (batch, _) = self.batch(&[&(ids, 0)], &self.device.clone().inner());
        let probabilities = ops::softmax(self.learner.net().valid().forward(&batch, &mut Dropout::off()));
        let probabilities: Vec<f32> = probabilities.into_data().try_into_vec().expect("32-bit floats");
        for (class, p) in self.classes.iter().zip(&probabilities) {
            (request.text)(&format!("{:5.1} % {class}\n", 100.0 * p));
        }
        Ok(SampleReport::default())
    }

    fn embedder(&self) -> Result<Embedder, CoreError> {
        let encoder = self.learner.net().encoder.valid();
        let device = self.device.clone().inner();
        Ok(Embedder::new(encoder, self.tokenizer.clone(), self.special, self.max_tokens, device))
    }
}
