//! What actor-critics that learn from a replay memory share: collecting experience with scaled actions and exploration
//! noise, the critics and their gradients, the greedy actor.
//!
//! Networks and the replay memory see the actions of a `Box` scaled to `[-1, 1]`; the environments get them within their
//! bounds. Returns are bootstrapped from the final observation of a truncated episode, and never after a termination.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_envs::{Buffer, Dtype, Space, VecEnv};
use hotfire_nn::distributions::categorical;
use hotfire_nn::{Activation, Adam, CompiledMlp, InputShape, Mlp};
use serde::{Deserialize, Serialize};

use crate::Policy;
use crate::agent::{as_actions, env_failed};
use crate::checkpoint::{load_envs, misfit, save_envs};
use crate::observation::{EnvView, ObservationEncoder};
use crate::on_policy::Check;
use crate::registry::Setting;
use crate::replay::{Batch, Replay, ReplayConfig};

/// Environment steps of one iteration, of which the metrics are means.
const ITERATION_STEPS: u64 = 100;

/// Time step and rate of return of the Ornstein-Uhlenbeck process.
const OU_TIME_STEP: f32 = 1e-2;
const OU_RETURN_RATE: f32 = 0.15;

/// What is added to actions while experience is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// Nothing.
    None,
    /// Independent draws of a normal distribution.
    Gaussian,
    /// An Ornstein-Uhlenbeck process, whose draws hang together over hundreds of steps: Lillicrap et al. 2016,
    /// <https://arxiv.org/abs/1509.02971>, section 3. It starts from zero with each episode.
    Ou,
}

/// The part of an algorithm's settings that [`Experience`] needs.
#[derive(Clone, Debug)]
pub(crate) struct ExperienceConfig {
    pub gamma: f64,
    pub batch_size: usize,
    pub replay_capacity: usize,
    pub learning_starts: u64,
    pub train_freq: usize,
    pub n_step: usize,
    pub noise: Noise,
    pub noise_std: f64,
    pub checkpoint_replay: bool,
    pub replay_directory: Option<std::path::PathBuf>,
}

impl ExperienceConfig {
    pub fn check(&self, check: &Check<'_>, setting: &Setting<'_>) -> Result<(), ConfigError> {
        check.range("gamma", self.gamma, 0.0, 1.0)?;
        check.range("noise_std", self.noise_std, 0.0, f64::MAX)?;
        check.at_least_one("batch_size", self.batch_size)?;
        check.at_least_one("replay_capacity", self.replay_capacity)?;
        check.at_least_one("train_freq", self.train_freq)?;
        check.at_least_one("n_step", self.n_step)?;
        if self.replay_capacity > u32::MAX as usize / 2 {
            return check.refuse("replay_capacity", "at most 2147483647", self.replay_capacity);
        }
        if self.batch_size > self.replay_capacity {
            let expected = format!("at most agent.replay_capacity = {}", self.replay_capacity);
            return check.refuse("batch_size", &expected, self.batch_size);
        }
        if self.learning_starts >= setting.total_steps {
            let expected = format!("less than train.steps = {}, so that something is learned", setting.total_steps);
            return check.refuse("learning_starts", &expected, self.learning_starts);
        }
        Ok(())
    }
}

/// How an actor's output becomes an action.
#[derive(Clone, Debug)]
pub(crate) enum ActionMap {
    /// `tanh` of the first `A` outputs, stretched to the bounds.
    Box { low: Vec<f32>, high: Vec<f32> },
    /// The outputs are logits.
    Discrete { n: usize, start: i32 },
}

impl ActionMap {
    /// Elements of a Box action, number of Discrete actions.
    pub fn width(&self) -> usize {
        match self {
            Self::Box { low, .. } => low.len(),
            Self::Discrete { n, .. } => *n,
        }
    }

    /// Elements that a critic's input has for the action.
    pub fn critic_inputs(&self) -> usize {
        if matches!(self, Self::Box { .. }) { self.width() } else { 0 }
    }

    /// Values that a critic gives: of the action that it looks at, or of each action.
    pub fn critic_outputs(&self) -> usize {
        if matches!(self, Self::Box { .. }) { 1 } else { self.width() }
    }
}

/// Environments, replay memory, and how far the run is.
pub(crate) struct Experience {
    pub config: ExperienceConfig,
    pub seed: u64,
    total_steps: u64,
    /// Environment steps taken so far.
    pub step: u64,
    /// Gradient steps so far, of the critics.
    pub updates: u64,
    envs: VecEnv,
    pub encoder: ObservationEncoder,
    pub actions: ActionMap,
    replay: Replay,
    batch: Batch,
    /// Actions as they are learned from, `[N, A]`, and as the environments get them.
    chosen: Buffer,
    stretched: Buffer,
    /// State of the Ornstein-Uhlenbeck process `[N, A]`.
    noise: Vec<f32>,
    inputs: Vec<f32>,
}

/// `B` transitions as the networks see them.
pub(crate) struct Transitions<'a> {
    /// Encoded `[B, D]`.
    pub observations: Vec<f32>,
    /// Encoded `[B, D]`.
    pub next_observations: Vec<f32>,
    /// `[B, A]`, scaled; `[B]` for Discrete actions.
    pub actions: &'a Buffer,
    /// `[B]`
    pub returns: &'a [f32],
    /// Factors `[B]` of the next values in the returns.
    pub discounts: &'a [f32],
}

impl Experience {
    /// Makes the environments and an empty replay memory.
    ///
    /// # Errors
    /// [`ConfigError`] for an environment that the algorithm called `name` can't serve.
    pub fn new(
        config: ExperienceConfig,
        name: &str,
        document: &ConfigDocument,
        setting: &Setting<'_>,
    ) -> Result<Self, ConfigError> {
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let (observation_space, action_space) = (envs.observation_space().clone(), envs.action_space().clone());
        let encoder = ObservationEncoder::new(&observation_space);
        if let InputShape::Image(_) = encoder.shape() {
            let problem = format!("{name} serves no pictures, found {observation_space}; ppo does");
            return Err(document.invalid("env.id", problem));
        }
        let actions = match &action_space {
            Space::Box { low, high, dtype: Dtype::F32, .. } => {
                if !low.iter().zip(high).all(|(low, high)| (high - low).is_finite() && low < high) {
                    let problem = format!("{name} needs actions within finite bounds, found {action_space}");
                    return Err(document.invalid("env.id", problem));
                }
                ActionMap::Box { low: low.clone(), high: high.clone() }
            }
            Space::Discrete { n, start } => ActionMap::Discrete { n: *n as usize, start: *start },
            _ => {
                let problem = format!("{name} can't choose actions from {action_space}; ppo may");
                return Err(document.invalid("env.id", problem));
            }
        };
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let layout = ReplayConfig {
            capacity: config.replay_capacity,
            n_step: config.n_step,
            gamma: config.gamma,
            frames: 1,
            priority_exponent: None,
            directory: config.replay_directory.clone(),
        };
        let mut replay = Replay::new(&observation_space, &action_space, envs.num_envs(), layout)
            .map_err(|error| document.invalid("agent.replay_directory", error))?;
        replay.begin(envs.observations());
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            updates: 0,
            batch: Batch::new(&observation_space, &action_space, config.batch_size),
            chosen: Buffer::new(&action_space, envs.num_envs()),
            stretched: Buffer::new(&action_space, envs.num_envs()),
            noise: vec![0.0; envs.num_envs() * actions.critic_inputs()],
            inputs: Vec::new(),
            replay,
            encoder,
            actions,
            envs,
            config,
        })
    }

    /// Share of the run that is done.
    pub fn progress(&self) -> f64 {
        self.step as f64 / self.total_steps as f64
    }

    /// Where an iteration that begins now ends.
    pub fn iteration_end(&self) -> u64 {
        (self.step + ITERATION_STEPS).min(self.total_steps).max(self.step + 1)
    }

    /// Steps the environments for one round and stores what they give. `act` writes actions for encoded observations
    /// `[N, D]`; before `learning_starts` they are uniform instead.
    pub fn collect(
        &mut self,
        means: &mut Means,
        mut act: impl FnMut(&[f32], &mut Buffer, &mut StreamRng),
    ) -> Result<(), CoreError> {
        let lanes = self.envs.num_envs();
        for _ in 0..self.config.train_freq.div_ceil(lanes) {
            let mut rng = stream(self.seed, "actions", self.step);
            if self.step < self.config.learning_starts {
                match (&mut self.chosen, &self.actions) {
                    (Buffer::I32(actions), ActionMap::Discrete { n, start }) => {
                        actions.iter_mut().for_each(|action| *action = start + rng.below(*n as u32) as i32);
                    }
                    (Buffer::F32(actions), _) => {
                        actions.iter_mut().for_each(|action| *action = 2.0 * rng.uniform() - 1.0);
                    }
                    _ => unreachable!("the buffer is made for the action space"),
                }
            } else {
                act(
                    self.encoder.input(self.envs.observations(), 0..lanes, &mut self.inputs),
                    &mut self.chosen,
                    &mut rng,
                );
            }
            self.add_noise(&mut rng);
            self.stretch();
            self.envs.step(as_actions(&self.stretched)).map_err(env_failed)?;
            self.replay.push(&self.chosen, (&self.envs).into());
            self.step += lanes as u64;
            let width = self.noise.len() / lanes;
            for episode in self.envs.ended_episodes() {
                means.add("episode_return", episode.episode_return);
                means.add("episode_length", f64::from(episode.length));
                self.noise[episode.env * width..][..width].fill(0.0);
            }
        }
        Ok(())
    }

    fn add_noise(&mut self, rng: &mut StreamRng) {
        let Buffer::F32(actions) = &mut self.chosen else { return };
        let std = self.config.noise_std as f32;
        match self.config.noise {
            Noise::None => {}
            Noise::Gaussian => actions.iter_mut().for_each(|action| *action += std * rng.normal()),
            Noise::Ou => {
                for (action, noise) in actions.iter_mut().zip(&mut self.noise) {
                    *noise += OU_TIME_STEP.sqrt() * std * rng.normal() - OU_RETURN_RATE * OU_TIME_STEP * *noise;
                    *action += *noise;
                }
            }
        }
        actions.iter_mut().for_each(|action| *action = action.clamp(-1.0, 1.0));
    }

    fn stretch(&mut self) {
        match (&self.chosen, &mut self.stretched, &self.actions) {
            (Buffer::F32(chosen), Buffer::F32(stretched), ActionMap::Box { low, high }) => {
                stretch(chosen, low, high, stretched);
            }
            (Buffer::I32(chosen), Buffer::I32(stretched), _) => stretched.copy_from_slice(chosen),
            _ => unreachable!("the buffers are made for the action space"),
        }
    }

    /// Whether enough was collected, also by a run that was resumed without its replay memory.
    pub fn can_learn(&self) -> bool {
        let needed = (self.config.learning_starts as usize).max(self.config.batch_size);
        self.step >= self.config.learning_starts && self.replay.len() >= needed.min(self.replay.capacity())
    }

    /// Draws the next batch.
    pub fn sample(&mut self) -> Transitions<'_> {
        self.replay.sample(&mut stream(self.seed, "replay", self.updates), 0.0, &mut self.batch);
        let encode = |buffer: &Buffer| {
            let mut out = vec![0.0; self.batch.indices.len() * self.encoder.outputs()];
            self.encoder.encode(buffer, &mut out);
            out
        };
        Transitions {
            observations: encode(&self.batch.observations),
            next_observations: encode(&self.batch.next_observations),
            actions: &self.batch.actions,
            returns: &self.batch.returns,
            discounts: &self.batch.discounts,
        }
    }

    /// Writes the environments, the noise and the replay memory.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        save_envs(to, &self.envs)?;
        to.arrays("noise.safetensors", &[("noise", &self.noise)])?;
        if self.config.checkpoint_replay { self.replay.save(to) } else { Ok(()) }
    }

    /// Restores what [`Experience::save`] wrote; without a replay memory the run collects one anew.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let name = "noise.safetensors";
        let noise = from.arrays(name)?.remove("noise").unwrap_or_default();
        if noise.len() != self.noise.len() {
            let problem = format!("expected {} numbers, found {}", self.noise.len(), noise.len());
            return Err(misfit(from, name, problem));
        }
        load_envs(from, &mut self.envs)?;
        self.noise = noise;
        if Replay::is_in(from) {
            self.replay.load(from)?;
        } else {
            self.replay.begin(self.envs.observations());
        }
        Ok(())
    }
}

/// Actions `[N, A]` from `[-1, 1]` to the bounds `[A]`.
fn stretch(actions: &[f32], low: &[f32], high: &[f32], out: &mut [f32]) {
    for (actions, out) in actions.chunks_exact(low.len()).zip(out.chunks_exact_mut(low.len())) {
        for (((action, low), high), out) in actions.iter().zip(low).zip(high).zip(out) {
            *out = (low + 0.5 * (action + 1.0) * (high - low)).clamp(*low, *high);
        }
    }
}

/// Means of what happens during an iteration.
#[derive(Default)]
pub(crate) struct Means {
    sums: Vec<(&'static str, f64, f64)>,
}

impl Means {
    pub fn add(&mut self, key: &'static str, value: f64) {
        match self.sums.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1.0),
            None => self.sums.push((key, value, 1.0)),
        }
    }

    pub fn into_metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        for (key, sum, count) in self.sums {
            metrics.push(key, sum / count);
        }
        metrics
    }
}

/// Networks that value observations and actions, each on its own.
#[derive(Module, Debug)]
pub(crate) struct Critics {
    nets: Vec<Mlp>,
}

/// How good the critics were before a step.
pub(crate) struct CriticStep {
    /// Half the mean squared error, summed over the critics.
    pub loss: f64,
    /// Mean value that the first critic gave.
    pub value: f64,
}

impl Critics {
    /// `count` networks from observations and actions to values.
    pub fn new(
        count: usize,
        observation_len: usize,
        hidden: &[usize],
        activation: Activation,
        actions: &ActionMap,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let sizes = [&[observation_len + actions.critic_inputs()], hidden, &[actions.critic_outputs()]].concat();
        Self { nets: (0..count).map(|_| Mlp::uniform(&sizes, activation, rng, device)).collect() }
    }

    /// The least of the critics' values `[B, M]` for inputs `[B, D]`.
    pub fn least(&self, inputs: Vec<f32>, rows: usize, device: &Device) -> Vec<f32> {
        let x = to_tensor(inputs, rows, device);
        let mut values = self.nets.iter().map(|net| to_vec(net.forward(x.clone())));
        let first = values.next().expect("there is a critic");
        values.fold(first, |mut least, values| {
            least.iter_mut().zip(values).for_each(|(least, value)| *least = least.min(value));
            least
        })
    }

    /// One step of all critics towards targets `[B]` for the values of column `taken: [B]`.
    pub fn step(
        &mut self,
        optimizer: &mut Adam,
        learning_rate: f64,
        inputs: Vec<f32>,
        taken: &[usize],
        targets: &[f32],
        device: &Device,
    ) -> CriticStep {
        let rows = targets.len();
        let x = to_tensor(inputs, rows, device);
        let mut found = CriticStep { loss: 0.0, value: 0.0 };
        let losses = self.nets.iter().enumerate().map(|(c, net)| {
            let outputs = net.forward(x.clone());
            let values = to_vec(outputs.clone().inner());
            let width = values.len() / rows;
            let mut gradient = vec![0.0; values.len()];
            for (row, (column, target)) in taken.iter().zip(targets).enumerate() {
                let at = row * width + column;
                let error = values[at] - target;
                gradient[at] = error / rows as f32;
                found.loss += 0.5 * f64::from(error * error) / rows as f64;
                if c == 0 {
                    found.value += f64::from(values[at]) / rows as f64;
                }
            }
            carry(outputs, gradient, device)
        });
        let gradients = losses.reduce(|a, b| a + b).expect("there is a critic").backward();
        *self = optimizer.step(self.clone(), gradients, learning_rate).0;
        found
    }

    /// The least value `[B]` that the first `count` critics give to observations `[B, D]` and actions `[B, A]`, and its
    /// gradient `[B, A]` by the actions.
    pub fn least_and_action_gradient(
        &self,
        count: usize,
        observations: &[f32],
        actions: &[f32],
        rows: usize,
        device: &Device,
    ) -> (Vec<f32>, Vec<f32>) {
        let x = to_tensor(join(observations, actions, rows), rows, device).require_grad();
        let nets = self.clone().no_grad().nets;
        let outputs: Vec<Tensor<2>> = nets[..count].iter().map(|net| net.forward(x.clone())).collect();
        let values: Vec<Vec<f32>> = outputs.iter().map(|output| to_vec(output.clone().inner())).collect();
        let mut least = values[0].clone();
        let mut owner = vec![0; rows];
        for (c, values) in values.iter().enumerate() {
            for ((least, owner), value) in least.iter_mut().zip(&mut owner).zip(values) {
                if value < least {
                    (*least, *owner) = (*value, c);
                }
            }
        }
        let sums = outputs.into_iter().enumerate().map(|(c, output)| {
            let ones = owner.iter().map(|owner| f32::from(u8::from(*owner == c))).collect();
            carry(output, ones, device)
        });
        let gradients = sums.reduce(|a, b| a + b).expect("there is a critic").backward();
        let by_input = to_vec(x.grad(&gradients).expect("the input takes part in the values"));
        let (inputs, action_len) = (by_input.len() / rows, actions.len() / rows);
        let by_action = by_input.chunks_exact(inputs).flat_map(|row| &row[inputs - action_len..]).copied().collect();
        (least, by_action)
    }
}

/// A sum whose derivative by `outputs` is `gradient`, so that it carries a loss's gradient into the network.
pub(crate) fn carry(outputs: Tensor<2>, gradient: Vec<f32>, device: &Device) -> Tensor<1> {
    let rows = outputs.dims()[0];
    (outputs * to_tensor(gradient, rows, device)).sum()
}

/// Rows of numbers as a tensor `[rows, _]`.
pub(crate) fn to_tensor(values: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
    let columns = values.len() / rows;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// A tensor's numbers; waits for the device.
pub(crate) fn to_vec(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("network outputs are 32-bit floats")
}

/// Rows of `a: [rows, A]` and `b: [rows, B]` side by side: `[rows, A + B]`.
pub(crate) fn join(a: &[f32], b: &[f32], rows: usize) -> Vec<f32> {
    let (a, b) = (a.chunks_exact(a.len() / rows), b.chunks_exact(b.len() / rows));
    a.zip(b).flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}

/// An actor that takes the best action it knows.
pub(crate) struct GreedyActor {
    net: CompiledMlp,
    encoder: ObservationEncoder,
    actions: ActionMap,
    inputs: Vec<f32>,
    scaled: Vec<f32>,
}

impl GreedyActor {
    pub fn new(actor: &Mlp, experience: &Experience) -> Self {
        Self {
            net: actor.compile(),
            encoder: experience.encoder.clone(),
            actions: experience.actions.clone(),
            inputs: Vec::new(),
            scaled: Vec::new(),
        }
    }
}

/// The squashed means `[N, A]` in outputs whose rows begin with the means.
pub(crate) fn squash(outputs: &[f32], rows: usize, action_len: usize, out: &mut Vec<f32>) {
    out.clear();
    let rows = outputs.chunks_exact(outputs.len() / rows);
    out.extend(rows.flat_map(|row| &row[..action_len]).map(|mean| mean.tanh()));
}

impl Policy for GreedyActor {
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer) {
        let rows = view.terminated.len();
        let outputs = self.net.forward(self.encoder.input(view.observations, 0..rows, &mut self.inputs));
        match (actions, &self.actions) {
            (Buffer::F32(actions), ActionMap::Box { low, high }) => {
                squash(outputs, rows, low.len(), &mut self.scaled);
                stretch(&self.scaled, low, high, actions);
            }
            (Buffer::I32(actions), ActionMap::Discrete { n, start }) => {
                let rows = outputs.chunks_exact(*n);
                actions.iter_mut().zip(rows).for_each(|(action, row)| *action = start + categorical::mode(row));
            }
            _ => unreachable!("the buffer is made for the action space"),
        }
    }
}

/// Values `[N]` of the greedy actions for observations `[N, D]` as the environments give them.
pub(crate) fn greedy_values(
    actor: &Mlp,
    critics: &Critics,
    experience: &Experience,
    observations: &Buffer,
) -> Vec<f32> {
    let rows = match observations {
        Buffer::F32(x) => x.len(),
        Buffer::U8(x) => x.len(),
        Buffer::I32(x) => x.len(),
    } / experience.encoder.row_len();
    let mut inputs = Vec::new();
    let inputs = experience.encoder.input(observations, 0..rows, &mut inputs);
    let mut net = actor.compile();
    let outputs = net.forward(inputs);
    let critics = critics.valid();
    let device = critics.devices().remove(0);
    match &experience.actions {
        ActionMap::Box { low, .. } => {
            let mut actions = Vec::new();
            squash(outputs, rows, low.len(), &mut actions);
            critics.least(join(inputs, &actions, rows), rows, &device)
        }
        ActionMap::Discrete { n, .. } => {
            let values = critics.least(inputs.to_vec(), rows, &device);
            let rows = values.chunks_exact(*n).zip(outputs.chunks_exact(*n));
            rows.map(|(values, logits)| values[categorical::mode(logits) as usize]).collect()
        }
    }
}
