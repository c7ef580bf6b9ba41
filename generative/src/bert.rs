//! BERT: a Transformer encoder that learns by filling in masked tokens and telling whether two passages belong together.
//!
//! Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>: 15 % of the tokens are predicted, of which 80 % are replaced
//! by `[MASK]`, 10 % by a random token and 10 % are left; the second passage follows the first in half of the pairs.
//! Departures: passages are drawn anew for each step instead of from a fixed set, and dropout acts on embeddings and
//! residual branches, not on attention weights.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::ops::{self, IGNORE};
use hotfire_nn::transformer::Dropout;
use serde::{Deserialize, Serialize};

use crate::embedder::Embedder;
use crate::encoder::{Batch, BertNet, Encoder, EncoderConfig, Heads, Special};
use crate::registry::ModelSpec;
use crate::sampling::Options;
use crate::text::{
    AttentionMaps, BERT_SPECIAL, Corpus, Learner, OptimizerSetting, TextConfig, Tokenizer, check_vocabulary, sentences,
};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "bert",
    summary: "Transformer encoder: masked language model and next-sentence prediction",
    source: "Devlin et al. 2019, arXiv:1810.04805",
    make: |document, setting| Ok(Box::new(Bert::from_config(document, setting)?)),
};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BertConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads, which divide the width.
    pub heads: usize,
    /// Channels of a token.
    pub width: usize,
    /// Largest number of tokens of a pair of passages.
    pub block: usize,
    /// Share of the tokens that are predicted.
    pub mask: f64,
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
    /// Batches of an evaluation.
    pub eval_batches: usize,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            layers: 4,
            heads: 4,
            width: 128,
            block: 64,
            mask: 0.15,
            dropout: 0.1,
            learning_rate: 1e-3,
            min_learning_rate: 1e-5,
            warmup: 100,
            weight_decay: 0.01,
            beta_2: 0.99,
            max_grad_norm: 1.0,
            eval_batches: 50,
        }
    }
}

impl BertConfig {
    fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        for (key, value, least) in [
            ("layers", self.layers, 1),
            ("heads", self.heads, 1),
            ("width", self.width, 1),
            ("block", self.block, 8),
            ("eval_batches", self.eval_batches, 1),
        ] {
            if value < least {
                return Err(document.out_of_range(&format!("model.{key}"), format!("at least {least}"), value));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            let expected = format!("a multiple of model.heads = {}", self.heads);
            return Err(document.out_of_range("model.width", expected, self.width));
        }
        for (key, value, holds) in [
            ("mask", self.mask, self.mask > 0.0 && self.mask < 1.0),
            ("dropout", self.dropout, (0.0..1.0).contains(&self.dropout)),
        ] {
            if !holds {
                return Err(document.out_of_range(&format!("model.{key}"), "a share below 1", value));
            }
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

    /// The shape of the encoder.
    pub fn encoder(&self, vocab_size: usize) -> EncoderConfig {
        EncoderConfig {
            vocab_size,
            layers: self.layers,
            heads: self.heads,
            width: self.width,
            hidden: 4 * self.width,
            block: self.block,
            epsilon: 1e-12,
        }
    }
}

/// One part of the corpus as sentences of tokens, in order.
struct Passages {
    sentences: Vec<Vec<u32>>,
}

impl Passages {
    fn of(text: &str, tokenizer: &Tokenizer) -> Result<Self, String> {
        let encoded: Result<Vec<_>, _> = sentences(text).iter().map(|sentence| tokenizer.encode(sentence)).collect();
        Ok(Self { sentences: encoded?.into_iter().filter(|ids| !ids.is_empty()).collect() })
    }

    /// Whole sentences from `at` on and before `end`, up to `limit` tokens (the first is cut to it), and the sentence
    /// after them.
    fn passage(&self, at: usize, end: usize, limit: usize) -> (Vec<u32>, usize) {
        let mut ids: Vec<u32> = self.sentences[at].iter().copied().take(limit).collect();
        let mut next = at + 1;
        while let Some(sentence) = self.sentences[next..end].first().filter(|s| ids.len() + s.len() <= limit) {
            ids.extend(sentence);
            next += 1;
        }
        (ids, next)
    }

    /// Two passages that fit into `block` tokens with the special ones, and whether the second follows the first.
    fn pair(&self, block: usize, rng: &mut StreamRng) -> (Vec<u32>, Vec<u32>, bool) {
        let room = block - 3;
        let all = self.sentences.len();
        // The last sentence has none after it: it is never in the first passage.
        let (a, next) = self.passage(rng.below(all as u32 - 1) as usize, all - 1, room / 2);
        let follows = rng.uniform() < 0.5;
        let at = if follows { next } else { rng.below(all as u32) as usize };
        let (b, _) = self.passage(at, all, room - a.len());
        (a, b, follows)
    }
}

/// A batch to learn from.
struct Masked {
    batch: Batch,
    /// Predicted places, counted over `B T`, and their tokens.
    places: Vec<u32>,
    targets: Vec<i64>,
    /// 0 where the second passage follows the first, 1 where not.
    next: Vec<i64>,
}

/// Replaces a share of the tokens that are not special; returns the targets, with [`IGNORE`] where nothing is predicted.
fn mask_tokens(ids: &mut [u32], special: &Special, vocab_size: usize, share: f64, rng: &mut StreamRng) -> Vec<i64> {
    let ordinary = (BERT_SPECIAL.len() as u32).min(vocab_size as u32 - 1);
    let mut targets = vec![IGNORE; ids.len()];
    for (id, target) in ids.iter_mut().zip(&mut targets) {
        if [special.cls, special.sep, special.pad].contains(id) || rng.uniform_f64() >= share {
            continue;
        }
        *target = i64::from(*id);
        match rng.uniform_f64() {
            draw if draw < 0.8 => *id = special.mask,
            draw if draw < 0.9 => *id = ordinary + rng.below(vocab_size as u32 - ordinary),
            _ => {}
        }
    }
    targets
}

/// Pairs of a batch, without another choice in `[train]`.
const BATCH: usize = 16;

/// BERT's pre-training as a task.
pub struct Bert {
    config: BertConfig,
    seed: u64,
    batch_size: usize,
    device: Device,
    corpus: Corpus,
    special: Special,
    train: Passages,
    validation: Passages,
    learner: Learner<BertNet>,
}

impl Bert {
    /// Reads and checks `[model]` and `[data]`, and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or a text that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: BertConfig = document.section("model")?;
        config.check(document)?;
        let data = TextConfig::of_word_pieces(document)?;
        let corpus = Corpus::read(&data).map_err(|error| document.invalid("data.files", error))?;
        let special = Special::of(&corpus.tokenizer).map_err(|error| document.invalid("data.tokenizer_file", error))?;
        let passages = |text| {
            let passages =
                Passages::of(text, &corpus.tokenizer).map_err(|error| document.invalid("data.files", error))?;
            if passages.sentences.len() < 3 {
                let found = passages.sentences.len();
                return Err(document.out_of_range("data.files", "three sentences or more in each part", found));
            }
            Ok(passages)
        };
        let train = passages(&corpus.train.text)?;
        let validation = passages(&corpus.measured().1.text)?;
        let device = setting.device.clone().autodiff();
        let encoder = config.encoder(corpus.tokenizer.vocab_size());
        let mut rng = stream(setting.seed, "network", 0);
        let net = BertNet {
            encoder: Encoder::new(&encoder, &mut rng, &device),
            heads: Heads::new(&encoder, &mut rng, &device),
        };
        Ok(Self {
            seed: setting.seed,
            batch_size: setting.batch_size_or(BATCH),
            learner: Learner::new(net, &config.optimizer(), setting.total_steps),
            device,
            corpus,
            special,
            train,
            validation,
            config,
        })
    }

    fn batch(&self, passages: &Passages, mut rng: StreamRng, device: &Device) -> Masked {
        let vocab_size = self.corpus.tokenizer.vocab_size();
        let mut sequences = Vec::with_capacity(self.batch_size);
        let (mut masked, mut next) = (Vec::new(), Vec::new());
        for _ in 0..self.batch_size {
            let (a, b, follows) = passages.pair(self.config.block, &mut rng);
            let (mut ids, segments) = self.special.wrap(&a, Some(&b));
            masked.push(mask_tokens(&mut ids, &self.special, vocab_size, self.config.mask, &mut rng));
            sequences.push((ids, segments));
            next.push(i64::from(!follows));
        }
        let batch = Batch::new(&sequences, self.special.pad, device);
        let length = batch.length();
        let (places, targets) = masked
            .iter()
            .enumerate()
            .flat_map(|(row, targets)| targets.iter().enumerate().map(move |(i, t)| ((row * length + i) as u32, *t)))
            .filter(|(_, target)| *target != IGNORE)
            .unzip();
        Masked { batch, places, targets, next }
    }

    /// Logits of the masked tokens `[M, V]` and of the pairs `[B, 2]`.
    fn predict(&self, net: &BertNet, masked: &Masked, dropout: &mut Dropout) -> (Option<Tensor<2>>, Tensor<2>) {
        let x = net.encoder.forward(&masked.batch, dropout);
        let next = net.heads.next.forward(net.heads.pool(x.clone()));
        let fill = (!masked.places.is_empty()).then(|| net.heads.fill_in(x, &masked.places, net.encoder.words.val()));
        (fill, next)
    }

    /// The commonest token of the training text: what one would guess without reading the rest.
    fn unigram(&self) -> i64 {
        let mut counts = vec![0u64; self.corpus.tokenizer.vocab_size()];
        self.train.sentences.iter().flatten().for_each(|id| counts[*id as usize] += 1);
        let commonest = (0..counts.len()).max_by_key(|id| (counts[*id], std::cmp::Reverse(*id)));
        commonest.expect("a tokenizer has tokens") as i64
    }
}

/// How many rows have their largest logit at the target.
fn hits(logits: Tensor<2>, targets: &[i64]) -> usize {
    let largest: Vec<i64> = logits.argmax(1).flatten::<1>(0, 1).into_data().try_into_vec_as().expect("whole numbers");
    largest.iter().zip(targets).filter(|(a, b)| a == b).count()
}

impl Task for Bert {
    fn step(&self) -> u64 {
        self.learner.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let step = self.learner.step();
        let masked = self.batch(&self.train, stream(self.seed, "batches", step), &self.device);
        let mut dropout = Dropout::new(self.config.dropout, stream(self.seed, "dropout", step));
        let (fill, next) = self.predict(self.learner.net(), &masked, &mut dropout);
        let next_loss = ops::cross_entropy(next, &masked.next);
        let mut metrics = Metrics::new();
        metrics.push("train_next_sentence_loss", f64::from(next_loss.clone().into_scalar::<f32>()));
        let loss = match fill {
            Some(fill) => {
                let mlm = ops::cross_entropy(fill, &masked.targets);
                metrics.push("train_mlm_loss", f64::from(mlm.clone().into_scalar::<f32>()));
                mlm + next_loss
            }
            None => next_loss,
        };
        self.learner.update(loss, &mut metrics);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let unigram = self.unigram();
        let (mut nats, mut right, mut guessed, mut tokens) = (0.0, 0, 0, 0);
        let (mut next_right, mut pairs) = (0, 0);
        for i in 0..self.config.eval_batches {
            let masked = self.batch(&self.validation, stream(self.seed, "evaluation", i as u64), &device);
            let (fill, next) = self.predict(&net, &masked, &mut Dropout::off());
            if let Some(fill) = fill {
                let loss = ops::cross_entropy(fill.clone(), &masked.targets).into_scalar::<f32>();
                nats += f64::from(loss) * masked.targets.len() as f64;
                right += hits(fill, &masked.targets);
                guessed += masked.targets.iter().filter(|target| **target == unigram).count();
                tokens += masked.targets.len();
            }
            next_right += hits(next, &masked.next);
            pairs += masked.next.len();
        }
        let (split, _) = self.corpus.measured();
        let mut metrics = Metrics::new();
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        let loss = nats / tokens.max(1) as f64;
        metrics.push(format!("{split}_mlm_loss"), loss);
        metrics.push(format!("{split}_mlm_perplexity"), loss.exp());
        metrics.push(format!("{split}_mlm_accuracy"), share(right, tokens));
        metrics.push(format!("{split}_unigram_accuracy"), share(guessed, tokens));
        metrics.push(format!("{split}_next_sentence_accuracy"), share(next_right, pairs));
        Ok(Evaluation { eval: None, metrics })
    }

    fn media(&mut self, _dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        Ok(Vec::new())
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
            let corpus = self.corpus.retokenized(tokenizer).map_err(misfit)?;
            self.special = Special::of(&corpus.tokenizer).map_err(misfit)?;
            self.train = Passages::of(&corpus.train.text, &corpus.tokenizer).map_err(misfit)?;
            self.validation = Passages::of(&corpus.measured().1.text, &corpus.tokenizer).map_err(misfit)?;
            self.corpus = corpus;
        }
        self.learner = learner;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "train_loss", label: "loss (nats)".into(), threshold: None }
    }
}

impl Model for Bert {
    /// Fills in the `[MASK]`s of the prompt. Options: `best=` (tokens that are named for each).
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut options = Options::of(request);
        let best = options.value("best", "a whole number above 0", |n| *n > 0)?.unwrap_or(5usize);
        options.finish()?;
        let Some(prompt) = request.prompt.as_deref() else {
            return Err(CoreError::Usage("expected --prompt with a text that has [MASK] in it".into()));
        };
        let tokenizer = &self.corpus.tokenizer;
        let ids = self.embedder()?.ids(prompt).map_err(|problem| CoreError::Usage(format!("--prompt: {problem}")))?;
        let places: Vec<u32> =
            ids.iter().enumerate().filter(|(_, id)| **id == self.special.mask).map(|(i, _)| i as u32).collect();
        if places.is_empty() {
            return Err(CoreError::Usage("--prompt: expected a text with [MASK] in it, found none".into()));
        }
        let net = self.learner.net().valid();
        let segments = vec![0; ids.len()];
        let batch = Batch::new(&[(ids.clone(), segments)], self.special.pad, &self.device.clone().inner());
        let x = net.encoder.forward(&batch, &mut Dropout::off());
        let probabilities = ops::softmax(net.heads.fill_in(x, &places, net.encoder.words.val()));
        let vocab_size = tokenizer.vocab_size();
        let rows: Vec<f32> = probabilities.into_data().try_into_vec().expect("probabilities are 32-bit floats");
        let mut filled = ids;
        for (row, place) in rows.chunks_exact(vocab_size).zip(&places) {
            let mut order: Vec<usize> = (0..vocab_size).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            filled[*place as usize] = order[0] as u32;
            let list: Vec<String> = order
                .iter()
                .take(best)
                .map(|id| format!("{} {:.1} %", tokenizer.token(*id as u32).unwrap_or_default(), 100.0 * row[*id]))
                .collect();
            (request.text)(&format!("{}\n", list.join(", ")));
        }
        (request.text)(&format!("{}\n", tokenizer.decode(&filled)));
        Ok(SampleReport::default())
    }

    fn embedder(&self) -> Result<Embedder, CoreError> {
        Ok(Embedder::new(
            self.learner.net().encoder.valid(),
            self.corpus.tokenizer.clone(),
            self.special,
            self.config.block,
            self.device.clone().inner(),
        ))
    }

    fn attention(&self, text: &str) -> Result<AttentionMaps, CoreError> {
        let embedder = self.embedder()?;
        let ids = embedder.ids(text).map_err(CoreError::Usage)?;
        Ok(AttentionMaps::new(&self.corpus.tokenizer, &ids, embedder.attention_weights(&ids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_follows_the_paper() {
        let special = Special { pad: 0, cls: 2, sep: 3, mask: 4 };
        let mut rng = stream(1, "test", 0);
        let original: Vec<u32> = (0..40_000).map(|i| if i % 100 == 0 { special.cls } else { 10 + i % 50 }).collect();
        let mut ids = original.clone();
        let targets = mask_tokens(&mut ids, &special, 1000, 0.15, &mut rng);
        let (mut chosen, mut masked, mut kept) = (0.0, 0.0, 0.0);
        for ((id, was), target) in ids.iter().zip(&original).zip(&targets) {
            if *target == IGNORE {
                assert_eq!(id, was);
                continue;
            }
            assert_eq!(*target, i64::from(*was));
            assert_ne!(*was, special.cls, "special tokens are not predicted");
            chosen += 1.0;
            masked += f64::from(u8::from(*id == special.mask));
            kept += f64::from(u8::from(id == was));
        }
        assert!((chosen / 39_600.0 - 0.15f64).abs() < 0.01, "{chosen}");
        assert!((masked / chosen - 0.8).abs() < 0.02);
        assert!((kept / chosen - 0.1).abs() < 0.02);
    }

    #[test]
    fn pairs_fit_and_half_of_them_follow() {
        // In a part of three short sentences the first passage has room for all of them.
        for (sentences, block) in [(50, 24), (3, 64)] {
            let passages = Passages { sentences: (0..sentences).map(|i| vec![i; 3 + i as usize % 9]).collect() };
            let mut rng = stream(2, "test", 0);
            let mut following = 0;
            for _ in 0..2000 {
                let (a, b, follows) = passages.pair(block, &mut rng);
                assert!(!a.is_empty() && !b.is_empty() && a.len() + b.len() + 3 <= block);
                if follows {
                    assert_eq!(a[a.len() - 1] + 1, b[0]);
                    following += 1;
                }
            }
            assert!((900..1100).contains(&following), "{sentences} sentences: {following}");
        }
    }
}
