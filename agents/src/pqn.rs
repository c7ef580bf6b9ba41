//! Parallelised Q-learning: many environments in place of a replay memory, layer normalisation in place of a target
//! network.
//!
//! Gallici et al. 2024, "Simplifying deep temporal difference learning", <https://arxiv.org/abs/2407.04811>, algorithm 1
//! with `Q(lambda)` returns: `R_t = r_t + gamma (lambda R_{t+1} + (1 - lambda) max_a Q(s_{t+1}, a))`. That is the
//! advantage estimator of [`crate::gae`] on the values `max_a Q` plus these values. It departs from the authors' code in
//! bootstrapping truncated episodes from their final observation, where all actions count, since no mask is known, and on
//! images in its network: theirs normalises the convolution and its dense layer of 128, and the head follows; ours leaves
//! both as they are and normalises the `hidden` layers alone.

use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, Space, VecEnv};
use hotfire_nn::{Activation, Adam, AdamConfig, Network};
use serde::{Deserialize, Serialize};

use crate::agent::env_failed;
use crate::checkpoint::{load_envs, save_envs};
use crate::experience::{check_exploration, exploration, random_action};
use crate::gae::{Trajectory, gae};
use crate::host_loss::{carry, to_tensor, to_vec};
use crate::observation::ObservationEncoder;
use crate::on_policy::Check;
use crate::q_head::{ErrorLoss, QHead, TdBatch, best_action, best_actions};
use crate::q_network::{GreedyQ, QNetwork, QNetworkConfig, export};
use crate::registry::{AlgorithmSpec, Setting};
use crate::{Agent, Policy, PolicyExport};

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "pqn",
    summary: "parallelised Q-learning without replay or target network, for Discrete actions",
    source: "Gallici et al. 2024, arXiv:2407.04811",
    make: |document, setting| Ok(Box::new(Pqn::from_config(document, setting)?)),
};

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PqnConfig {
    /// RAdam's step size.
    pub learning_rate: Schedule,
    /// Steps `T` that each environment takes before an update.
    pub rollout_steps: usize,
    /// Passes over a rollout.
    pub epochs: usize,
    /// Minibatches of a pass.
    pub minibatches: usize,
    /// Discount.
    pub gamma: f64,
    /// Trade of bias against variance in the returns: 0 looks one step ahead, 1 to the end of the rollout.
    pub lambda: f64,
    /// Chance of a random action; it runs over the first `exploration_fraction` of the run and stays at its end.
    pub epsilon: Schedule,
    /// The part of the run over which `epsilon` runs.
    pub exploration_fraction: f64,
    /// Factor of the rewards that the learner sees.
    pub reward_scale: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// RAdam's epsilon.
    pub adam_epsilon: f64,
    /// What looks at observations first: `auto`, `mlp`, `nature_cnn` or `minatar_cnn`.
    pub network: Network,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers: `tanh`, `relu` or `silu`.
    pub activation: Activation,
    /// Whether the layers of `hidden` are normalised, which is what makes it stable; those of a convolutional network are not.
    pub layer_norm: bool,
}

impl Default for PqnConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Linear { from: 2.5e-4, to: 0.0 },
            rollout_steps: 32,
            epochs: 2,
            minibatches: 16,
            gamma: 0.99,
            lambda: 0.65,
            epsilon: Schedule::Linear { from: 1.0, to: 0.05 },
            exploration_fraction: 0.1,
            reward_scale: 1.0,
            max_grad_norm: 10.0,
            adam_epsilon: 1e-8,
            network: Network::Auto,
            hidden: vec![128, 128],
            activation: Activation::Relu,
            layer_norm: true,
        }
    }
}

impl PqnConfig {
    fn check(&self, document: &ConfigDocument, num_envs: usize) -> Result<(), ConfigError> {
        let check = Check { document };
        check.schedule("learning_rate", self.learning_rate)?;
        check_exploration(&check, self.epsilon, self.exploration_fraction)?;
        check.range("gamma", self.gamma, 0.0, 1.0)?;
        check.range("lambda", self.lambda, 0.0, 1.0)?;
        check.positive("reward_scale", self.reward_scale)?;
        check.positive("max_grad_norm", self.max_grad_norm)?;
        check.positive("adam_epsilon", self.adam_epsilon)?;
        check.rollout_steps(self.rollout_steps, num_envs)?;
        check.at_least_one("epochs", self.epochs)?;
        let steps = self.rollout_steps * num_envs;
        if self.minibatches == 0 || !steps.is_multiple_of(self.minibatches) {
            let expected = format!("a divisor of rollout_steps * num_envs = {steps}");
            return check.refuse("minibatches", &expected, self.minibatches);
        }
        check.widths("hidden", &self.hidden)
    }
}

/// The agent.
pub struct Pqn {
    config: PqnConfig,
    seed: u64,
    total_steps: u64,
    step: u64,
    device: Device,
    envs: VecEnv,
    encoder: ObservationEncoder,
    num_actions: usize,
    /// The least action.
    start: i32,
    head: QHead,
    net: QNetwork,
    optimizer: Adam,
    rollout: Rollout,
}

/// `T` steps of `N` environments; all but the inputs are `[T, N]`.
struct Rollout {
    /// Encoded observations: `[T, N, D]`.
    inputs: Vec<f32>,
    /// Actions, counted from 0.
    actions: Vec<usize>,
    rewards: Vec<f32>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    /// Largest values of the observations that a step started from and led to.
    values: Vec<f32>,
    next_values: Vec<f32>,
    /// What `Q(lambda)` makes of them.
    returns: Vec<f32>,
}

/// What a checkpoint holds besides the network, the moments and the environments.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    optimizer_steps: u64,
}

impl Pqn {
    /// Reads and checks the rest of `[agent]`, and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or an environment with spaces that PQN can't serve.
    pub fn from_config(document: &mut ConfigDocument, setting: &Setting<'_>) -> Result<Self, ConfigError> {
        let config: PqnConfig = document.section("agent")?;
        config.check(document, setting.env.num_envs)?;
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let &Space::Discrete { n, start } = envs.action_space() else {
            let found = envs.action_space();
            let problem = format!("pqn needs Discrete actions, found {found}; sac and ppo serve Box actions");
            return Err(document.invalid("env.id", problem));
        };
        let encoder = ObservationEncoder::new(envs.observation_space());
        let head = QHead::Value(ErrorLoss::Mse);
        let device = setting.device.clone().autodiff();
        let shape = QNetworkConfig {
            input: encoder.shape(),
            network: config.network,
            num_actions: n as usize,
            width: head.width(),
            hidden: &config.hidden,
            activation: config.activation,
            dueling: false,
            noise: None,
            layer_norm: config.layer_norm,
        };
        let net = QNetwork::new(&shape, &mut stream(setting.seed, "network", 0), &device)
            .map_err(|problem| document.invalid("agent.network", problem))?;
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let steps = config.rollout_steps * envs.num_envs();
        let zeros = || vec![0.0; steps];
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            rollout: Rollout {
                inputs: vec![0.0; steps * encoder.outputs()],
                actions: vec![0; steps],
                rewards: zeros(),
                terminated: vec![false; steps],
                truncated: vec![false; steps],
                values: zeros(),
                next_values: zeros(),
                returns: zeros(),
            },
            optimizer: Adam::new(AdamConfig {
                epsilon: config.adam_epsilon,
                max_grad_norm: Some(config.max_grad_norm),
                rectified: true,
                ..AdamConfig::default()
            }),
            num_actions: n as usize,
            start,
            device,
            envs,
            encoder,
            head,
            net,
            config,
        })
    }

    /// Fills the rollout with epsilon-greedy steps, and computes its returns.
    fn collect(&mut self, metrics: &mut Metrics) -> Result<(), CoreError> {
        let (n, d, a) = (self.envs.num_envs(), self.encoder.outputs(), self.num_actions);
        let fraction = self.config.exploration_fraction;
        let epsilon = exploration(self.config.epsilon, fraction, self.step, self.total_steps);
        let mut rng = stream(self.seed, "actions", self.step);
        let mut acting = self.net.compile(&self.head, None);
        let mut actions = Buffer::I32(vec![0; n]);
        let (mut returns, mut lengths, mut episodes) = (0.0, 0.0, 0.0);
        let rollout = &mut self.rollout;
        for t in 0..self.config.rollout_steps {
            let row = t * n..(t + 1) * n;
            let inputs = &mut rollout.inputs[t * n * d..(t + 1) * n * d];
            self.encoder.encode(self.envs.observations(), inputs);
            let Buffer::I32(chosen) = &mut actions else { unreachable!("it was made of integers") };
            let masks = self.envs.action_masks();
            let q = acting.q_values(inputs);
            for (i, best) in best_actions(q, a, masks).enumerate() {
                let random = rng.uniform_f64() < epsilon;
                let mask = masks.map(|masks| &masks[i * a..][..a]);
                let action = if random { random_action(a, mask, &mut rng) } else { best };
                rollout.values[row.start + i] = q[i * a + best];
                rollout.actions[row.start + i] = action;
                chosen[i] = self.start + action as i32;
            }
            self.envs.step(actions.as_actions()).map_err(env_failed)?;
            let scale = self.config.reward_scale as f32;
            rollout.rewards[row.clone()].iter_mut().zip(self.envs.rewards()).for_each(|(r, x)| *r = x * scale);
            rollout.terminated[row.clone()].copy_from_slice(self.envs.terminated());
            rollout.truncated[row].copy_from_slice(self.envs.truncated());
            for episode in self.envs.ended_episodes() {
                returns += episode.episode_return;
                lengths += f64::from(episode.length);
                episodes += 1.0;
            }
            // The values that the last step led to, which is where it was not an episode's end the next step's.
            if t > 0 {
                let (before, now) = (&mut rollout.next_values[(t - 1) * n..t * n], &rollout.values[t * n..(t + 1) * n]);
                for i in (0..n).filter(|i| !rollout.truncated[(t - 1) * n + i]) {
                    before[i] = now[i];
                }
            }
            let mut last = vec![0.0; d];
            for i in (0..n).filter(|i| self.envs.truncated()[*i] && !self.envs.terminated()[*i]) {
                self.encoder.encode_rows(self.envs.final_observations(), i..i + 1, &mut last);
                let q = acting.q_values(&last);
                rollout.next_values[t * n + i] = q[best_action(q)];
            }
        }
        let mut scratch = Vec::new();
        let input = self.encoder.input(self.envs.observations(), 0..n, &mut scratch);
        let last = rollout.values.len() - n;
        let q = acting.q_values(input);
        for (i, best) in best_actions(q, a, self.envs.action_masks()).enumerate() {
            if !rollout.truncated[last + i] {
                rollout.next_values[last + i] = q[i * a + best];
            }
        }
        let trajectory = Trajectory {
            rewards: &rollout.rewards,
            values: &rollout.values,
            next_values: &rollout.next_values,
            terminated: &rollout.terminated,
            truncated: &rollout.truncated,
        };
        gae(trajectory, n, self.config.gamma, self.config.lambda, &mut rollout.returns);
        rollout.returns.iter_mut().zip(&rollout.values).for_each(|(target, value)| *target += value);
        if episodes > 0.0 {
            metrics.push("episode_return", returns / episodes);
            metrics.push("episode_length", lengths / episodes);
        }
        metrics.push("epsilon", epsilon);
        Ok(())
    }

    /// A gradient step on rows of the rollout; returns the loss, the mean value and the gradient norm.
    fn update(&mut self, rows: &[u32], learning_rate: f64) -> [f64; 3] {
        let (b, d, a) = (rows.len(), self.encoder.outputs(), self.num_actions);
        let rollout = &self.rollout;
        let mut inputs = Vec::with_capacity(b * d);
        rows.iter().for_each(|row| inputs.extend_from_slice(&rollout.inputs[*row as usize * d..][..d]));
        let actions: Vec<usize> = rows.iter().map(|row| rollout.actions[*row as usize]).collect();
        let targets: Vec<f32> = rows.iter().map(|row| rollout.returns[*row as usize]).collect();
        // Half of the squared error.
        let weights = vec![0.5; b];
        let outputs = self.net.forward(to_tensor(inputs, b, &self.device), None);
        let q = to_vec(outputs.clone().inner());
        let td = TdBatch { actions: &actions, targets: &targets, weights: &weights };
        let (mut gradient, mut errors) = (vec![0.0; b * a], vec![0.0; b]);
        let loss = self.head.loss(&q, td, &mut gradient, &mut errors);
        let gradients = carry(outputs, gradient, &self.device).backward();
        let (net, gradient_norm) = self.optimizer.step(self.net.clone(), gradients, learning_rate);
        self.net = net;
        let chosen: f32 = q.chunks_exact(a).zip(&actions).map(|(q, action)| q[*action]).sum();
        [loss, f64::from(chosen) / b as f64, gradient_norm]
    }

    fn greedy(&self) -> GreedyQ {
        GreedyQ { net: self.net.compile(&self.head, None), encoder: self.encoder.clone(), start: self.start }
    }
}

impl Agent for Pqn {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let mut metrics = Metrics::new();
        self.collect(&mut metrics)?;
        let learning_rate = self.config.learning_rate.value(self.step as f64 / self.total_steps as f64);
        let steps = self.rollout.actions.len();
        let mut order: Vec<u32> = (0..steps as u32).collect();
        let mut sums = [0.0; 3];
        for epoch in 0..self.config.epochs {
            stream(self.seed, "minibatches", self.step * self.config.epochs as u64 + epoch as u64).shuffle(&mut order);
            for rows in order.chunks_exact(steps / self.config.minibatches) {
                let measured = self.update(rows, learning_rate);
                sums.iter_mut().zip(measured).for_each(|(sum, x)| *sum += x);
            }
        }
        self.step += steps as u64;
        let updates = (self.config.epochs * self.config.minibatches) as f64;
        for (key, sum) in ["loss", "q_value", "grad_norm"].into_iter().zip(sums) {
            metrics.push(key, sum / updates);
        }
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn policy(&self) -> Box<dyn Policy> {
        Box::new(self.greedy())
    }

    fn state_values(&self, observations: &Buffer) -> Option<Vec<f32>> {
        Some(self.greedy().state_values(observations))
    }

    fn export(&self) -> PolicyExport {
        let mut input = vec![0.0; self.encoder.outputs()];
        self.encoder.encode_rows(self.envs.observations(), 0..1, &mut input);
        export(&self.net, &self.head, self.encoder.shape(), input, self.start)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module("network.safetensors", &self.net)?;
        let optimizer_steps = self.optimizer.save(to, "optimizer.safetensors", &self.net)?;
        save_envs(to, &self.envs)?;
        to.json("agent.json", &State { step: self.step, optimizer_steps })
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        let net = from.module("network.safetensors", self.net.clone())?;
        self.optimizer.restore(from, "optimizer.safetensors", &net, state.optimizer_steps)?;
        load_envs(from, &mut self.envs)?;
        (self.net, self.step) = (net, state.step);
        Ok(())
    }
}
