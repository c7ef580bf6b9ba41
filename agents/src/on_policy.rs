//! What policy-gradient algorithms share: a rollout, value estimates, advantages, minibatches and a gradient step.
//!
//! An algorithm decides how long a rollout is, what loss it takes from it and how often.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_envs::{Buffer, VecEnv};
use hotfire_nn::ops::gru::Sequences;
use hotfire_nn::ops::policy_loss::{ActionBatch, PolicyBatch, PolicyLossConfig, PolicyLossParts, policy_loss};
use hotfire_nn::{Activation, Adam, AdamConfig, Gru, Network, Torso};
use serde::{Deserialize, Serialize};

use crate::actor_critic::{ActorCritic, ActorCriticShape, GreedyActorCritic, Head};
use crate::checkpoint::{load_envs, misfit, save_envs};
use crate::export::{ExportExample, ExportOutput};
use crate::gae::{Trajectory, gae};
use crate::normalize::{ObservationNormalizer, RewardNormalizer, RewardStatistics};
use crate::observation::ObservationEncoder;
use crate::registry::Setting;
use crate::rnd::{Rnd, RndConfig};
use crate::rollout::{Rollout, Until};
use crate::{Policy, PolicyExport};

/// Bound of a normalised observation or reward.
const CLIP: f32 = 10.0;

/// The memory of a recurrent policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recurrent {
    /// A gated recurrent unit.
    Gru,
}

/// What an algorithm's config says about the parts that all share.
#[derive(Clone, Debug)]
pub(crate) struct LearnerConfig {
    pub gamma: f64,
    pub gae_lambda: f64,
    pub network: Network,
    pub hidden: Vec<usize>,
    pub activation: Activation,
    pub initial_log_std: f64,
    pub recurrent: Option<Recurrent>,
    pub recurrent_units: usize,
    pub normalize_observations: bool,
    pub normalize_rewards: bool,
    pub max_grad_norm: f64,
    pub adam_epsilon: f64,
    pub rnd: Option<RndConfig>,
}

impl LearnerConfig {
    pub fn check(&self, check: &Check<'_>) -> Result<(), ConfigError> {
        check.range("gamma", self.gamma, 0.0, 1.0)?;
        check.range("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        check.range("initial_log_std", self.initial_log_std, -20.0, 2.0)?;
        check.positive("max_grad_norm", self.max_grad_norm)?;
        check.positive("adam_epsilon", self.adam_epsilon)?;
        check.at_least_one("recurrent_units", self.recurrent_units)?;
        check.widths("hidden", &self.hidden)?;
        self.rnd.as_ref().map_or(Ok(()), |rnd| rnd.check(check.document))
    }
}

/// Range checks of the `[agent]` section.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    pub document: &'a ConfigDocument,
}

impl Check<'_> {
    pub fn refuse<T>(&self, key: &str, expected: &str, found: impl ToString) -> Result<T, ConfigError> {
        Err(self.document.out_of_range(&format!("agent.{key}"), expected, found.to_string()))
    }

    pub fn range(&self, key: &str, value: f64, low: f64, high: f64) -> Result<(), ConfigError> {
        if (low..=high).contains(&value) {
            Ok(())
        } else if high < f64::MAX {
            self.refuse(key, &format!("a number from {low} to {high}"), value)
        } else {
            self.refuse(key, &format!("a finite number not below {low}"), value)
        }
    }

    pub fn schedule(&self, key: &str, schedule: Schedule) -> Result<(), ConfigError> {
        let (low, high) = schedule.bounds();
        self.range(key, low, 0.0, f64::MAX)?;
        self.range(key, high, 0.0, f64::MAX)
    }

    pub fn positive(&self, key: &str, value: f64) -> Result<(), ConfigError> {
        if value > 0.0 && value.is_finite() { Ok(()) } else { self.refuse(key, "a positive number", value) }
    }

    pub fn positive_share(&self, key: &str, value: f64) -> Result<(), ConfigError> {
        if value > 0.0 && value <= 1.0 { Ok(()) } else { self.refuse(key, "a number above 0, at most 1", value) }
    }

    pub fn widths(&self, key: &str, widths: &[usize]) -> Result<(), ConfigError> {
        if widths.contains(&0) { self.refuse(key, "positive widths", format!("{widths:?}")) } else { Ok(()) }
    }

    /// Checks the steps that each of the environments takes for an update: rows of a rollout have numbers of 32 bits.
    pub fn rollout_steps(&self, steps: usize, num_envs: usize) -> Result<(), ConfigError> {
        self.at_least_one("rollout_steps", steps)?;
        let most = u32::MAX as usize / num_envs.max(1);
        if steps <= most { Ok(()) } else { self.refuse("rollout_steps", &format!("at most {most}"), steps) }
    }

    pub fn at_least_one(&self, key: &str, value: usize) -> Result<(), ConfigError> {
        if value > 0 { Ok(()) } else { self.refuse(key, "at least 1", value) }
    }
}

/// Environments, policy, optimizer and the rollout in hand.
pub(crate) struct Learner {
    config: LearnerConfig,
    pub seed: u64,
    total_steps: u64,
    /// Environment steps taken so far.
    pub step: u64,
    device: Device,
    envs: VecEnv,
    encoder: ObservationEncoder,
    head: Head,
    net: ActorCritic,
    optimizer: Adam,
    pub rollout: Rollout,
    observation_normalizer: Option<ObservationNormalizer>,
    reward_normalizer: Option<RewardNormalizer>,
    rnd: Option<Rnd>,
    /// Value estimates and targets of the rollout, the environment's reward first, then the intrinsic: `[V, T, N]`.
    values: Vec<f32>,
    returns: Vec<f32>,
    /// Advantages, summed over the rewards: `[T, N]`.
    advantages: Vec<f32>,
    intrinsic_reward: f64,
}

/// What a checkpoint holds besides the network, the moments and the environments.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    optimizer_steps: u64,
    observation_normalizer: Option<ObservationNormalizer>,
    reward_normalizer: Option<RewardStatistics>,
}

impl Learner {
    /// Makes the environments and the networks.
    ///
    /// # Errors
    /// [`ConfigError`] for an environment that the algorithm called `name` can't serve.
    pub fn new(
        config: LearnerConfig,
        name: &str,
        document: &ConfigDocument,
        setting: &Setting<'_>,
    ) -> Result<Self, ConfigError> {
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let encoder = ObservationEncoder::new(envs.observation_space());
        if config.normalize_observations && !encoder.is_identity() {
            let problem = format!("only vectors of floats can be normalised, found {}", envs.observation_space());
            return Err(document.invalid("agent.normalize_observations", problem));
        }
        let Some(head) = Head::of(envs.action_space()) else {
            let found = envs.action_space();
            let problem = format!("{name} needs Discrete, MultiDiscrete or Box actions of floats, found {found}");
            return Err(document.invalid("env.id", problem));
        };
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let torso = Torso::new(config.network, encoder.shape(), &mut rng, &device)
            .map_err(|problem| document.invalid("agent.network", problem))?;
        let units = config.recurrent.map(|Recurrent::Gru| config.recurrent_units);
        let shape = ActorCriticShape {
            recurrent_units: units,
            hidden: &config.hidden,
            activation: config.activation,
            value_heads: 1 + usize::from(config.rnd.is_some()),
            initial_log_std: config.initial_log_std,
        };
        let net = ActorCritic::new(torso, &head, shape, &mut rng, &device);
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let n = envs.num_envs();
        let observation_len = encoder.row_len();
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            optimizer: Adam::new(AdamConfig {
                epsilon: config.adam_epsilon,
                max_grad_norm: Some(config.max_grad_norm),
                ..AdamConfig::default()
            }),
            rollout: Rollout::new(&envs, units.unwrap_or(0)),
            observation_normalizer: config
                .normalize_observations
                .then(|| ObservationNormalizer::new(observation_len, CLIP)),
            reward_normalizer: config.normalize_rewards.then(|| RewardNormalizer::new(n, config.gamma, CLIP)),
            rnd: config.rnd.as_ref().map(|rnd| Rnd::new(rnd.clone(), encoder.shape(), n, setting.seed, &device)),
            values: Vec::new(),
            returns: Vec::new(),
            advantages: Vec::new(),
            intrinsic_reward: 0.0,
            device,
            envs,
            encoder,
            head,
            net,
            config,
        })
    }

    /// Share of the run that is done.
    pub fn progress(&self) -> f64 {
        self.step as f64 / self.total_steps as f64
    }

    /// Plays a rollout with the policy as it is, and estimates its advantages. Counts no steps yet.
    pub fn collect(&mut self, until: Until) -> Result<(), CoreError> {
        let mut policy = self.net.compile(&self.head);
        self.rollout.collect(
            until,
            &mut self.envs,
            &mut policy,
            &mut stream(self.seed, "actions", self.step),
            self.observation_normalizer.as_mut(),
            self.reward_normalizer.as_mut(),
        )?;
        let (len, n) = (self.rollout.len(), self.rollout.num_envs);
        let heads = policy.value_heads();
        let mut next_values = vec![0.0; heads * len];
        self.values.resize(heads * len, 0.0);
        self.returns.resize(heads * len, 0.0);
        self.advantages.resize(len, 0.0);
        self.rollout.estimate_values(&mut policy, &mut self.values, &mut next_values);
        let trajectory = Trajectory {
            rewards: &self.rollout.rewards,
            values: &self.values[..len],
            next_values: &next_values[..len],
            terminated: &self.rollout.terminated,
            truncated: &self.rollout.truncated,
        };
        gae(trajectory, n, self.config.gamma, self.config.gae_lambda, &mut self.advantages);
        add_to(&mut self.returns[..len], &self.advantages, &self.values[..len]);
        if let Some(rnd) = &mut self.rnd {
            let rewards = rnd.rewards(self.rollout.next_inputs(), n);
            self.intrinsic_reward = rewards.iter().map(|r| f64::from(*r)).sum::<f64>() / len as f64;
            // Novelty does not end with the episode.
            let (on, values) = (vec![false; len], &self.values[len..]);
            let trajectory = Trajectory {
                rewards: &rewards,
                values,
                next_values: &next_values[len..],
                terminated: &on,
                truncated: &on,
            };
            let mut advantages = vec![0.0; len];
            gae(trajectory, n, rnd.config.gamma, self.config.gae_lambda, &mut advantages);
            add_to(&mut self.returns[len..], &advantages, values);
            let (extrinsic, intrinsic) = (rnd.config.extrinsic_coef as f32, rnd.config.intrinsic_coef as f32);
            for (sum, advantage) in self.advantages.iter_mut().zip(&advantages) {
                *sum = extrinsic * *sum + intrinsic * advantage;
            }
        }
        Ok(())
    }

    /// The rollout's rows in `count` shuffled minibatches of equal size; a recurrent policy gets whole sequences, so
    /// that its environments are shuffled instead of its steps.
    pub fn minibatches(&self, count: usize, rng: &mut StreamRng) -> Vec<Vec<u32>> {
        let n = self.rollout.num_envs as u32;
        if self.net.memory.is_none() {
            let mut order: Vec<u32> = (0..self.rollout.len() as u32).collect();
            rng.shuffle(&mut order);
            return order.chunks_exact(order.len() / count).map(<[u32]>::to_vec).collect();
        }
        let mut order: Vec<u32> = (0..n).collect();
        rng.shuffle(&mut order);
        let steps = self.rollout.len() as u32 / n;
        let rows = |envs: &[u32]| (0..steps).flat_map(|t| envs.iter().map(move |env| t * n + env)).collect();
        order.chunks_exact(order.len() / count).map(rows).collect()
    }

    /// One gradient step on these rows of the rollout; returns the parts of the loss and the gradient norm.
    pub fn learn(
        &mut self,
        rows: &[u32],
        normalize_advantage: bool,
        loss: PolicyLossConfig,
        learning_rate: f64,
    ) -> Update {
        let m = rows.len();
        let rollout = &self.rollout;
        let gather = |source: &[f32]| -> Vec<f32> { rows.iter().map(|row| source[*row as usize]).collect() };
        let per_head = |source: &[f32]| -> Vec<f32> { source.chunks_exact(rollout.len()).flat_map(gather).collect() };
        let mut observations = vec![0.0; m * self.encoder.outputs()];
        let chosen = rows.iter().map(|row| *row as usize);
        self.encoder.encode_rows(&rollout.observations, chosen, &mut observations);
        let observations = TensorData::new(observations, [m, self.encoder.outputs()]);
        let observations = Tensor::from_data(observations, &self.device);
        let mut advantages = gather(&self.advantages);
        if normalize_advantage {
            normalize(&mut advantages);
        }
        let memory = self.net.memory.as_ref().map(|memory| {
            let (units, n) = (memory.units(), rollout.num_envs);
            let starts = rollout.starts();
            // The first rows are the sequences' first steps.
            let first = rows.iter().take_while(|row| (**row as usize) < n);
            let initial = first.flat_map(|env| &rollout.initial_states[*env as usize * units..][..units]);
            (initial.copied().collect::<Vec<f32>>(), rows.iter().map(|row| starts[*row as usize]).collect::<Vec<_>>())
        });
        let sequences = memory.as_ref().map(|(initial, starts)| Sequences { initial, starts });
        let (output, values) = self.net.forward(observations, sequences);

        let (mut integers, mut floats) = (Vec::new(), Vec::new());
        let mask: Option<Vec<bool>> = rollout.action_masks.as_ref().map(|masks| {
            let width = masks.len() / rollout.len();
            rows.iter().flat_map(|row| &masks[*row as usize * width..][..width]).copied().collect()
        });
        let actions = match (&self.head, &rollout.actions) {
            (Head::Categorical { sizes, start }, Buffer::I32(actions)) => {
                let k = sizes.len();
                integers.extend(rows.iter().flat_map(|row| &actions[*row as usize * k..][..k]).map(|a| a - start));
                ActionBatch::Categorical { sizes, chosen: &integers, mask: mask.as_deref() }
            }
            (Head::Gaussian { low, .. }, Buffer::F32(actions)) => {
                let k = low.len();
                floats.extend(rows.iter().flat_map(|row| &actions[*row as usize * k..][..k]));
                ActionBatch::Gaussian { actions: &floats }
            }
            _ => unreachable!("the buffer is made for the head's action space"),
        };
        let batch = PolicyBatch {
            actions,
            log_probs: &gather(&rollout.log_probs),
            advantages: &advantages,
            values: &per_head(&self.values),
            returns: &per_head(&self.returns),
        };
        let log_std = self.net.log_std.as_ref().map(|log_std| log_std.val());
        let (total, parts) = policy_loss(output, log_std, values, batch, loss);
        let (net, gradient_norm) = self.optimizer.step(self.net.clone(), total.backward(), learning_rate);
        self.net = net;
        let predictor = self.rnd.as_mut().map(|rnd| rnd.learn(rows));
        Update { parts, gradient_norm, predictor }
    }

    /// Counts the rollout's steps; returns what there is to say about it and its updates. `rows` are those that
    /// were learned from, if not all.
    pub fn finish(&mut self, updates: &Updates, rows: Option<&[u32]>) -> Metrics {
        let len = self.rollout.len();
        self.step += len as u64;
        let mut metrics = Metrics::new();
        let episodes = self.rollout.episode_returns.len() as f64;
        if episodes > 0.0 {
            let lengths = self.rollout.episode_lengths.iter().map(|length| f64::from(*length));
            metrics.push("episode_return", self.rollout.episode_returns.iter().sum::<f64>() / episodes);
            metrics.push("episode_length", lengths.sum::<f64>() / episodes);
        }
        updates.push_means(&mut metrics);
        let (values, returns) = (&self.values[..len], &self.returns[..len]);
        let explained = rows.map_or_else(
            || explained_variance(values, returns),
            |rows| {
                let gather = |source: &[f32]| -> Vec<f32> { rows.iter().map(|row| source[*row as usize]).collect() };
                explained_variance(&gather(values), &gather(returns))
            },
        );
        metrics.push("explained_variance", explained);
        if self.rnd.is_some() {
            metrics.push("intrinsic_reward", self.intrinsic_reward);
        }
        metrics
    }

    /// The policy as it is now, without exploration.
    pub fn policy(&self) -> Box<dyn Policy> {
        let net = self.net.compile(&self.head);
        Box::new(GreedyActorCritic::new(net, self.encoder.clone(), self.observation_normalizer.clone()))
    }

    /// The policy for use outside.
    pub fn export(&self) -> PolicyExport {
        let layers = self.observation_normalizer.iter().map(ObservationNormalizer::export);
        let layers = layers.chain(self.net.torso.export()).chain(self.net.memory.iter().map(Gru::export));
        let layers = layers.chain(self.net.actor.export(Activation::Identity));
        let mut input = vec![0.0; self.encoder.outputs()];
        self.encoder.encode_rows(self.envs.observations(), 0..1, &mut input);
        let mut seen = input.clone();
        if let Some(normalizer) = &self.observation_normalizer {
            normalizer.normalize(&input, &mut seen);
        }
        let mut policy = self.net.compile(&self.head);
        // A second step on the same observation, so that there is something to remember.
        let mut next = vec![0.0; policy.units()];
        policy.output(&seen, &mut next);
        let state = next.clone();
        let output = policy.output(&seen, &mut next).to_vec();
        PolicyExport {
            input: self.encoder.shape(),
            layers: layers.collect(),
            output: match &self.head {
                Head::Categorical { sizes, start } => ExportOutput::Logits { sizes: sizes.clone(), start: *start },
                Head::Gaussian { low, high } => ExportOutput::Means { low: low.clone(), high: high.clone() },
            },
            example: ExportExample { input, output, states: (!next.is_empty()).then_some((state, next)) },
        }
    }

    /// Values `[N]` of observations `[N, D]` as the environments give them, at the start of an episode.
    pub fn state_values(&self, observations: &Buffer) -> Vec<f32> {
        let mut input = vec![0.0; observations.len() / self.encoder.row_len() * self.encoder.outputs()];
        match (&self.observation_normalizer, observations) {
            (Some(normalizer), Buffer::F32(observations)) => normalizer.normalize(observations, &mut input),
            _ => self.encoder.encode(observations, &mut input),
        }
        let mut policy = self.net.compile(&self.head);
        let mut states = vec![0.0; observations.len() / self.encoder.row_len() * policy.units()];
        let heads = policy.value_heads();
        policy.values(&input, &mut states).iter().step_by(heads).copied().collect()
    }

    /// Writes all that [`Learner::load`] needs to go on bit for bit.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module("network.safetensors", &self.net)?;
        let optimizer_steps = self.optimizer.save(to, "optimizer.safetensors", &self.net)?;
        save_envs(to, &self.envs)?;
        if self.net.memory.is_some() {
            to.arrays("memory.safetensors", &[("states", &self.rollout.states)])?;
        }
        if let Some(rnd) = &self.rnd {
            rnd.save(to)?;
        }
        to.json(
            "agent.json",
            &State {
                step: self.step,
                optimizer_steps,
                observation_normalizer: self.observation_normalizer.clone(),
                reward_normalizer: self.reward_normalizer.as_ref().map(|rewards| rewards.statistics().clone()),
            },
        )
    }

    /// Restores what [`Learner::save`] wrote.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        for (key, was, is) in [
            ("normalize_observations", state.observation_normalizer.is_some(), self.config.normalize_observations),
            ("normalize_rewards", state.reward_normalizer.is_some(), self.config.normalize_rewards),
        ] {
            if was != is {
                let problem = format!("agent.{key} is {was} there, and can't change to {is} on the way");
                return Err(misfit(from, "agent.json", problem));
            }
        }
        let net = from.module("network.safetensors", self.net.clone())?;
        self.optimizer.restore(from, "optimizer.safetensors", &net, state.optimizer_steps)?;
        if net.memory.is_some() {
            let name = "memory.safetensors";
            let states = from.arrays(name)?.remove("states").unwrap_or_default();
            if states.len() != self.rollout.states.len() {
                let problem = format!("expected {} numbers, found {}", self.rollout.states.len(), states.len());
                return Err(misfit(from, name, problem));
            }
            self.rollout.states = states;
        }
        load_envs(from, &mut self.envs)?;
        if let Some(rnd) = &mut self.rnd {
            rnd.load(from)?;
        }
        self.net = net;
        self.step = state.step;
        self.observation_normalizer = state.observation_normalizer;
        if let (Some(normalizer), Some(statistics)) = (&mut self.reward_normalizer, state.reward_normalizer) {
            normalizer.restore(statistics);
        }
        Ok(())
    }
}

/// What a gradient step says about itself.
pub(crate) struct Update {
    pub parts: PolicyLossParts,
    gradient_norm: f64,
    /// Loss of the predictor of random network distillation.
    predictor: Option<f64>,
}

/// Sums over an iteration's gradient steps.
#[derive(Default)]
pub(crate) struct Updates {
    count: u32,
    parts: PolicyLossParts,
    gradient_norm: f64,
    predictor: Option<f64>,
}

impl Updates {
    pub fn add(&mut self, update: &Update) {
        self.count += 1;
        self.parts.policy += update.parts.policy;
        self.parts.value += update.parts.value;
        self.parts.entropy += update.parts.entropy;
        self.parts.approx_kl += update.parts.approx_kl;
        self.parts.clip_fraction += update.parts.clip_fraction;
        self.gradient_norm += update.gradient_norm;
        if let Some(loss) = update.predictor {
            *self.predictor.get_or_insert(0.0) += loss;
        }
    }

    fn push_means(&self, metrics: &mut Metrics) {
        let n = f64::from(self.count);
        metrics.push("policy_loss", self.parts.policy / n);
        metrics.push("value_loss", self.parts.value / n);
        metrics.push("entropy", self.parts.entropy / n);
        metrics.push("approx_kl", self.parts.approx_kl / n);
        metrics.push("clip_fraction", self.parts.clip_fraction / n);
        metrics.push("grad_norm", self.gradient_norm / n);
        if let Some(predictor) = self.predictor {
            metrics.push("predictor_loss", predictor / n);
        }
    }
}

fn add_to(out: &mut [f32], a: &[f32], b: &[f32]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
}

/// Brings the numbers to mean 0 and standard deviation 1.
fn normalize(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let (mean, scale) = (mean as f32, (1.0 / (variance.sqrt() + 1e-8)) as f32);
    values.iter_mut().for_each(|v| *v = (*v - mean) * scale);
}

/// `1 - Var(returns - values) / Var(returns)`: 1 for a perfect value function, 0 for a constant one.
fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    let variance = |numbers: &dyn Fn(usize) -> f64| {
        let n = values.len();
        let mean = (0..n).map(numbers).sum::<f64>() / n as f64;
        (0..n).map(|i| (numbers(i) - mean).powi(2)).sum::<f64>() / n as f64
    };
    let total = variance(&|i| f64::from(returns[i]));
    let left = variance(&|i| f64::from(returns[i] - values[i]));
    if total > 0.0 { 1.0 - left / total } else { 0.0 }
}
