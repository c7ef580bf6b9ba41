//! Recurrent language models: the plain recurrent network, LSTM and GRU.
//!
//! Elman 1990; Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014,
//! <https://arxiv.org/abs/1406.1078>. Training is backpropagation through time, truncated: the text is read in parallel
//! streams, `unroll` tokens at a step, and the state is carried from step to step without its gradient.

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::sigmoid;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::init::normal;
use hotfire_nn::ops;
use hotfire_nn::transformer::{Dropout, Projection};
use serde::{Deserialize, Serialize};

use crate::registry::ModelSpec;
use crate::text::{
    Corpus, Learner, NextToken, OptimizerSetting, TextConfig, check_vocabulary, describe, generate, write_sample,
};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "rnn",
    summary: "recurrent language model with plain, LSTM or GRU cells",
    source: "Hochreiter & Schmidhuber 1997; Cho et al. 2014, arXiv:1406.1078",
    make: |document, setting| Ok(Box::new(RnnModel::from_config(document, setting)?)),
};

/// The recurrent cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// `h = tanh(W x + U h + b)`
    Rnn,
    /// Input, forget and output gates around a cell.
    #[default]
    Lstm,
    /// Reset and update gates.
    Gru,
}

impl Cell {
    /// How many blocks of `H` columns the maps of input and state have.
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// How many vectors of `H` numbers the state has: the LSTM has its cell beside the output.
    fn states(self) -> usize {
        if self == Self::Lstm { 2 } else { 1 }
    }
}

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RnnConfig {
    /// `rnn`, `lstm` or `gru`.
    pub cell: Cell,
    /// Recurrent layers.
    pub layers: usize,
    /// Units of a layer, and channels of a token.
    pub width: usize,
    /// Tokens through which the gradient goes back.
    pub unroll: usize,
    /// Probability of dropping an element between layers while training.
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

impl Default for RnnConfig {
    fn default() -> Self {
        Self {
            cell: Cell::Lstm,
            layers: 1,
            width: 256,
            unroll: 64,
            dropout: 0.0,
            learning_rate: 3e-3,
            min_learning_rate: 3e-4,
            warmup: 100,
            weight_decay: 0.0,
            beta_2: 0.99,
            max_grad_norm: 1.0,
        }
    }
}

impl RnnConfig {
    fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        for (key, value) in [("layers", self.layers), ("width", self.width), ("unroll", self.unroll)] {
            if value == 0 {
                return Err(document.out_of_range(&format!("model.{key}"), "at least 1", value));
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

/// A layer's maps of input and state to its gates.
#[derive(Module, Debug)]
pub struct RnnLayer {
    input: Projection,
    state: Projection,
    #[module(skip)]
    cell: Cell,
}

/// A layer's state: `[B, H]` each.
type LayerState = Vec<Tensor<2>>;

impl RnnLayer {
    fn new(cell: Cell, width: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let std = 1.0 / (width as f64).sqrt();
        let shape = [width, cell.gates() * width];
        let input = Projection::new(shape, true, std, rng, device);
        let mut state = Projection::new(shape, true, std, rng, device);
        if cell == Cell::Lstm {
            // An open forget gate at the start lets the gradient reach far back (Jozefowicz et al. 2015).
            let bias = (0..4 * width).map(|i| f32::from(u8::from((width..2 * width).contains(&i)))).collect::<Vec<_>>();
            state.bias = Some(Param::from_tensor(Tensor::from_data(TensorData::new(bias, [4 * width]), device)));
        }
        Self { input, state, cell }
    }

    /// `x: [B, T, C]` to `[B, T, H]`, and the state after the last step.
    fn forward(&self, x: Tensor<3>, mut state: LayerState) -> (Tensor<3>, LayerState) {
        let length = x.dims()[1];
        let from_input = self.input.forward(x);
        let mut outputs = Vec::with_capacity(length);
        for t in 0..length {
            let from_input = from_input.clone().narrow(1, t, 1).squeeze_dim::<2>(1);
            let from_state = self.state.forward(state[0].clone());
            state = self.step(from_input, from_state, state);
            outputs.push(state[0].clone());
        }
        (Tensor::stack(outputs, 1), state)
    }

    /// One step from the gates' two parts `[B, gates H]`.
    fn step(&self, x: Tensor<2>, h: Tensor<2>, state: LayerState) -> LayerState {
        let width = state[0].dims()[1];
        let gate = |tensor: &Tensor<2>, i: usize| tensor.clone().narrow(1, i * width, width);
        match self.cell {
            Cell::Rnn => vec![(x + h).tanh()],
            Cell::Lstm => {
                let sum = x + h;
                let (input, forget, output) = (sigmoid(gate(&sum, 0)), sigmoid(gate(&sum, 1)), sigmoid(gate(&sum, 2)));
                let cell = forget * state[1].clone() + input * gate(&sum, 3).tanh();
                vec![output * cell.clone().tanh(), cell]
            }
            Cell::Gru => {
                let reset = sigmoid(gate(&x, 0) + gate(&h, 0));
                let update = sigmoid(gate(&x, 1) + gate(&h, 1));
                let new = (gate(&x, 2) + reset * gate(&h, 2)).tanh();
                vec![new.clone() + update * (state[0].clone() - new)]
            }
        }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct RnnNet {
    /// Vector of each token, `[V, C]`.
    tokens: Param<Tensor<2>>,
    layers: Vec<RnnLayer>,
    /// `[H, V]`
    head: Projection,
}

impl RnnNet {
    /// A network with random weights.
    pub fn new(config: &RnnConfig, vocab_size: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let width = config.width;
        Self {
            tokens: Param::from_tensor(normal([vocab_size, width], 0.1, rng, device)),
            layers: (0..config.layers).map(|_| RnnLayer::new(config.cell, width, rng, device)).collect(),
            head: Projection::new([width, vocab_size], true, 1.0 / (width as f64).sqrt(), rng, device),
        }
    }

    /// Logits `[B, T, V]` of the token after each of `ids: [B, T]`, and the state after the last one.
    fn forward(
        &self,
        ids: Tensor<2, Int>,
        state: Vec<LayerState>,
        dropout: &mut Dropout,
    ) -> (Tensor<3>, Vec<LayerState>) {
        let mut x = dropout.apply(ops::embedding(self.tokens.val(), ids));
        let mut after = Vec::with_capacity(self.layers.len());
        for (layer, state) in self.layers.iter().zip(state) {
            let (y, state) = layer.forward(x, state);
            x = dropout.apply(y);
            after.push(state);
        }
        (self.head.forward(x), after)
    }
}

/// The state of all layers on the host: `[layers][states]` arrays of `[B, H]`.
#[derive(Clone, Debug, PartialEq)]
struct HostState {
    batch: usize,
    values: Vec<Vec<Vec<f32>>>,
}

impl HostState {
    fn zeros(config: &RnnConfig, batch: usize) -> Self {
        let zeros = vec![vec![0.0; batch * config.width]; config.cell.states()];
        Self { batch, values: vec![zeros; config.layers] }
    }

    fn upload(&self, device: &Device) -> Vec<LayerState> {
        let tensor = |values: &Vec<f32>| {
            let width = values.len() / self.batch;
            Tensor::from_data(TensorData::new(values.clone(), [self.batch, width]), device)
        };
        self.values.iter().map(|layer| layer.iter().map(tensor).collect()).collect()
    }

    /// Reading the values back also cuts them off the graph.
    fn download(&mut self, state: &[LayerState]) {
        let read = |tensor: &Tensor<2>| tensor.clone().into_data().try_into_vec().expect("states are 32-bit floats");
        self.values = state.iter().map(|layer| layer.iter().map(read).collect()).collect();
    }
}

/// Parallel streams through a text: windows of `unroll + 1` tokens, the last shared with the next window.
fn windows(ids: &[u32], streams: usize, unroll: usize, index: usize) -> Vec<&[u32]> {
    let length = ids.len() / streams;
    (0..streams).map(|s| &ids[s * length + index * unroll..][..unroll + 1]).collect()
}

/// How many windows a stream has.
fn windows_of(ids: &[u32], streams: usize, unroll: usize) -> usize {
    (ids.len() / streams).saturating_sub(1) / unroll
}

/// Streams of text that are read at once, without another choice in `[train]`.
const BATCH: usize = 12;

/// A recurrent language model as a task.
pub struct RnnModel {
    config: RnnConfig,
    seed: u64,
    batch_size: usize,
    device: Device,
    corpus: Corpus,
    learner: Learner<RnnNet>,
    state: HostState,
}

impl RnnModel {
    /// Reads and checks `[model]` and `[data]`, and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or a text that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: RnnConfig = document.section("model")?;
        config.check(document)?;
        let batch_size = setting.batch_size_or(BATCH);
        let data = TextConfig::from_document(document)?;
        let corpus = Corpus::read(&data).map_err(|error| document.invalid("data.files", error))?;
        for split in [&corpus.train, corpus.measured().1] {
            if windows_of(&split.ids, batch_size, config.unroll) == 0 {
                let least = batch_size * (config.unroll + 1);
                let expected = format!(
                    "{least} tokens or more ({batch_size} streams, train.batch_size, of model.unroll + 1) in each part"
                );
                return Err(document.out_of_range("data.files", expected, split.ids.len()));
            }
        }
        let device = setting.device.clone().autodiff();
        let vocab_size = corpus.tokenizer.vocab_size();
        let net = RnnNet::new(&config, vocab_size, &mut stream(setting.seed, "network", 0), &device);
        Ok(Self {
            seed: setting.seed,
            batch_size,
            device,
            learner: Learner::new(net, &config.optimizer(), setting.total_steps),
            state: HostState::zeros(&config, batch_size),
            corpus,
            config,
        })
    }

    fn loss(
        net: &RnnNet,
        windows: &[&[u32]],
        state: &mut HostState,
        dropout: &mut Dropout,
        device: &Device,
    ) -> Tensor<1> {
        let length = windows[0].len() - 1;
        let ids: Vec<i32> = windows.iter().flat_map(|w| w[..length].iter().map(|id| *id as i32)).collect();
        let targets: Vec<i64> = windows.iter().flat_map(|w| w[1..].iter().map(|id| i64::from(*id))).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [windows.len(), length]), device);
        let (logits, after) = net.forward(ids, state.upload(device), dropout);
        state.download(&after);
        let vocab_size = logits.dims()[2];
        ops::cross_entropy(logits.reshape([targets.len(), vocab_size]), &targets)
    }
}

impl Task for RnnModel {
    fn step(&self) -> u64 {
        self.learner.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let (batch_size, unroll) = (self.batch_size, self.config.unroll);
        let count = windows_of(&self.corpus.train.ids, batch_size, unroll) as u64;
        let index = (self.learner.step() % count) as usize;
        if index == 0 {
            self.state = HostState::zeros(&self.config, batch_size);
        }
        let windows = windows(&self.corpus.train.ids, batch_size, unroll, index);
        let mut dropout = Dropout::new(self.config.dropout, stream(self.seed, "dropout", self.learner.step()));
        let loss = Self::loss(self.learner.net(), &windows, &mut self.state, &mut dropout, &self.device);
        let mut metrics = Metrics::new();
        self.learner.update(loss, &mut metrics);
        Ok(metrics)
    }

    /// The loss over the whole part, read in as many streams as a batch has, each with its state carried on.
    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let (name, split) = self.corpus.measured();
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let (batch_size, unroll) = (self.batch_size, self.config.unroll);
        let count = windows_of(&split.ids, batch_size, unroll);
        let mut state = HostState::zeros(&self.config, batch_size);
        let mut nats = 0.0;
        for index in 0..count {
            let windows = windows(&split.ids, batch_size, unroll, index);
            let loss = Self::loss(&net, &windows, &mut state, &mut Dropout::off(), &device);
            nats += f64::from(loss.into_scalar::<f32>()) * (batch_size * unroll) as f64;
        }
        let tokens = count * batch_size * unroll;
        let characters = split.text.chars().count() as f64 * tokens as f64 / split.ids.len() as f64;
        Ok(Evaluation { eval: None, metrics: describe(name, nats, tokens, characters.round() as usize) })
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let seed = self.seed;
        write_sample(self, &dir.join("sample.txt"), seed)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to, &self.corpus.tokenizer)?;
        let names: Vec<String> = (0..self.config.layers)
            .flat_map(|layer| (0..self.config.cell.states()).map(move |i| format!("{layer}.{i}")))
            .collect();
        let arrays = self.state.values.iter().flatten().map(Vec::as_slice);
        let arrays: Vec<(&str, &[f32])> = names.iter().map(String::as_str).zip(arrays).collect();
        to.arrays("state.safetensors", &arrays)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |name: &str, problem| CoreError::Checkpoint { path: from.path().join(name), problem };
        let mut learner = self.learner.clone();
        let tokenizer = learner.load(from)?;
        check_vocabulary(from, tokenizer.vocab_size(), self.corpus.tokenizer.vocab_size())?;
        let mut arrays = from.arrays("state.safetensors")?;
        let mut state = HostState::zeros(&self.config, self.batch_size);
        for (layer, values) in state.values.iter_mut().enumerate() {
            for (i, values) in values.iter_mut().enumerate() {
                let found = arrays.remove(&format!("{layer}.{i}")).unwrap_or_default();
                if found.len() != values.len() {
                    let problem = format!("{layer}.{i}: expected {} numbers, found {}", values.len(), found.len());
                    return Err(misfit("state.safetensors", problem));
                }
                *values = found;
            }
        }
        if tokenizer.to_json() != self.corpus.tokenizer.to_json() {
            self.corpus = self.corpus.retokenized(tokenizer).map_err(|problem| misfit("tokenizer.json", problem))?;
        }
        self.learner = learner;
        self.state = state;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "train_loss", label: "loss (nats a token)".into(), threshold: None }
    }
}

impl Model for RnnModel {
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let zeros = HostState::zeros(&self.config, 1);
        let device = self.device.clone().inner();
        let mut reader = Reader { net: self.learner.net().valid(), state: zeros.upload(&device), zeros, device };
        generate(request, &self.corpus.tokenizer, &mut reader)
    }
}

/// The network with what it has read.
struct Reader {
    net: RnnNet,
    state: Vec<LayerState>,
    zeros: HostState,
    device: Device,
}

impl NextToken for Reader {
    fn restart(&mut self) {
        self.state = self.zeros.upload(&self.device);
    }

    fn read(&mut self, ids: &[u32]) -> Vec<f32> {
        let length = ids.len();
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [1, length]), &self.device);
        let (logits, state) = self.net.forward(ids, std::mem::take(&mut self.state), &mut Dropout::off());
        self.state = state;
        let last: Tensor<1> = logits.narrow(1, length - 1, 1).flatten(0, 2);
        last.into_data().try_into_vec().expect("logits are 32-bit floats")
    }

    fn context(&self) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step of each cell on one unit with weights that can be followed by hand.
    #[test]
    fn cells_follow_their_equations() {
        let device = Device::flex();
        let row = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), &device);
        let step = |cell: Cell, x: &[f32], h: &[f32], state: &[f32]| -> Vec<f32> {
            let layer = RnnLayer::new(cell, 1, &mut stream(1, "test", 0), &device);
            let state = state.iter().map(|v| row(&[*v])).collect();
            layer.step(row(x), row(h), state).iter().map(|t| t.clone().into_scalar::<f32>()).collect()
        };
        let close = |got: Vec<f32>, want: &[f64]| {
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{got:?} against {want:?}");
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        close(step(Cell::Rnn, &[0.3], &[0.4], &[9.0]), &[0.7f64.tanh()]);
        let cell = sigmoid(0.7) * 2.0 + sigmoid(0.3) * (-0.4f64).tanh();
        close(
            step(Cell::Lstm, &[0.1, 0.5, -0.2, -0.5], &[0.2, 0.2, 0.3, 0.1], &[5.0, 2.0]),
            &[sigmoid(0.1) * cell.tanh(), cell],
        );
        let (reset, update) = (sigmoid(0.4), sigmoid(-0.6));
        let new = (0.3 + reset * 0.8f64).tanh();
        close(step(Cell::Gru, &[0.1, -0.2, 0.3], &[0.3, -0.4, 0.8], &[1.5]), &[(1.0 - update) * new + update * 1.5]);
    }

    #[test]
    fn streams_cover_the_text_in_order() {
        let ids: Vec<u32> = (0..23).collect();
        assert_eq!(windows_of(&ids, 2, 3), 3);
        let read: Vec<u32> = (0..3).flat_map(|i| windows(&ids, 2, 3, i)[1][..3].to_vec()).collect();
        assert_eq!(read, (11..20).collect::<Vec<u32>>());
        assert_eq!(windows(&ids, 2, 3, 0)[0], [0, 1, 2, 3]);
        assert_eq!(windows(&ids, 2, 3, 2)[0], [6, 7, 8, 9]);
    }
}
