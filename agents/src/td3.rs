//! Deterministic policy gradients from a replay memory; the presets differ in their defaults alone.
//!
//! - `td3`: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods",
//!   <https://arxiv.org/abs/1802.09477>: two critics, noise on the target's action, a policy that learns more slowly.
//! - `ddpg`: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning",
//!   <https://arxiv.org/abs/1509.02971>: none of the three. Without the paper's batch normalisation, its weight decay and
//!   its final layers' own initialisation, and with the action at the critic's input, where the paper has it join at the
//!   second hidden layer; and with TD3's settings where the paper has others: independent normal noise of
//!   0.1 on actions (the paper: an Ornstein-Uhlenbeck process of 0.2, which is `noise = "ou"` with `noise_std = 0.2`), one
//!   step size of 1e-3 for policy and critic (the paper: 1e-4 and 1e-3), `tau` 0.005 (0.001), batches of 256 (64), hidden
//!   layers of 256 and 256 (400 and 300).

use burn::module::Module;
use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::{Means, Metrics};
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::Buffer;
use hotfire_nn::ops::mlp;
use hotfire_nn::{Activation, Adam, AdamConfig, CompiledMlp, Mlp, ema};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{load_learned, save_learned};
use crate::experience::{Experience, ExperienceConfig, Noise, OffPolicy, Serves, iterate};
use crate::host_loss::{carry, to_tensor, to_vec};
use crate::off_policy::{Critics, GreedyActor, export, greedy_values, join, targets};
use crate::on_policy::Check;
use crate::registry::{AlgorithmSpec, Setting};
use crate::{Agent, Policy, PolicyExport};

/// Twin delayed deterministic policy gradients.
pub const TD3: AlgorithmSpec = AlgorithmSpec {
    name: "td3",
    summary: "twin delayed deterministic policy gradients, for Box actions",
    source: "Fujimoto et al. 2018, arXiv:1802.09477",
    make: |document, setting| Ok(Box::new(Td3::from_config(document, setting, "td3", Td3Config::default())?)),
};

/// Deep deterministic policy gradients.
pub const DDPG: AlgorithmSpec = AlgorithmSpec {
    name: "ddpg",
    summary: "deep deterministic policy gradients, for Box actions",
    source: "Lillicrap et al. 2016, arXiv:1509.02971",
    make: |document, setting| Ok(Box::new(Td3::from_config(document, setting, "ddpg", Td3Config::ddpg())?)),
};

const SERVES: Serves = Serves { boxes: true, discrete: false, images: false };

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Td3Config {
    /// Adam's step size, for the policy and the critics.
    pub learning_rate: Schedule,
    /// Discount.
    pub gamma: f64,
    /// How far an update moves the target networks.
    pub tau: f64,
    /// Transitions of a gradient step.
    pub batch_size: usize,
    /// Transitions that the replay memory keeps.
    pub replay_capacity: usize,
    /// Environment steps under random actions. Learning starts after them, as soon as there are enough for a batch.
    pub learning_starts: u64,
    /// Environment steps between rounds of learning, rounded up to whole steps of all environments.
    pub train_freq: usize,
    /// Gradient steps of a round.
    pub gradient_steps: usize,
    /// Steps summed into a return before the target critics' value.
    pub n_step: usize,
    /// Number of critics; the least of their values is the target's.
    pub critics: usize,
    /// Gradient steps of the critics for one of the policy and the target networks.
    pub policy_delay: u64,
    /// Standard deviation of the noise on the target's action; an action's range is 2.
    pub target_noise_std: f64,
    /// Largest size of that noise.
    pub target_noise_clip: f64,
    /// What is added to actions while experience is collected: `none`, `gaussian` or `ou`.
    pub noise: Noise,
    /// Scale of that noise; an action's range is 2.
    pub noise_std: f64,
    /// Widths of the hidden layers, of the policy and the critics alike.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers: `tanh`, `relu` or `silu`.
    pub activation: Activation,
    /// Whether checkpoints hold the replay memory. Without it a resumed run collects `learning_starts` steps anew before
    /// it goes on learning, and is not the uninterrupted run.
    pub checkpoint_replay: bool,
    /// A directory for a memory-mapped file with the replay memory's observations; none keeps them in memory.
    pub replay_directory: Option<std::path::PathBuf>,
}

impl Default for Td3Config {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(1e-3),
            gamma: 0.99,
            tau: 0.005,
            batch_size: 256,
            replay_capacity: 1_000_000,
            learning_starts: 1000,
            train_freq: 1,
            gradient_steps: 1,
            n_step: 1,
            critics: 2,
            policy_delay: 2,
            target_noise_std: 0.2,
            target_noise_clip: 0.5,
            noise: Noise::Gaussian,
            noise_std: 0.1,
            hidden: vec![256, 256],
            activation: Activation::Relu,
            checkpoint_replay: true,
            replay_directory: None,
        }
    }
}

impl Td3Config {
    fn ddpg() -> Self {
        Self { critics: 1, policy_delay: 1, target_noise_std: 0.0, ..Self::default() }
    }

    fn check(&self, document: &ConfigDocument, setting: &Setting<'_>) -> Result<(), ConfigError> {
        let check = Check { document };
        check.schedule("learning_rate", self.learning_rate)?;
        check.positive_share("tau", self.tau)?;
        check.range("target_noise_std", self.target_noise_std, 0.0, f64::MAX)?;
        check.range("target_noise_clip", self.target_noise_clip, 0.0, f64::MAX)?;
        check.at_least_one("critics", self.critics)?;
        check.at_least_one("policy_delay", self.policy_delay as usize)?;
        check.widths("hidden", &self.hidden)?;
        self.experience().check(&check, setting)
    }

    fn experience(&self) -> ExperienceConfig {
        ExperienceConfig {
            gamma: self.gamma,
            batch_size: self.batch_size,
            replay_capacity: self.replay_capacity,
            learning_starts: self.learning_starts,
            train_freq: self.train_freq,
            gradient_steps: self.gradient_steps,
            n_step: self.n_step,
            epsilon: Schedule::Constant(0.0),
            exploration_fraction: 0.0,
            noise: self.noise,
            noise_std: self.noise_std,
            uses_masks: false,
            priority_exponent: None,
            checkpoint_replay: self.checkpoint_replay,
            replay_directory: self.replay_directory.clone(),
        }
    }
}

/// The agent.
pub struct Td3 {
    config: Td3Config,
    device: Device,
    plain_device: Device,
    experience: Experience,
    /// Observations to actions before their `tanh`: `[N, A]`.
    actor: Mlp,
    target_actor: Mlp,
    critics: Critics,
    target_critics: Critics,
    actor_optimizer: Adam,
    critic_optimizer: Adam,
    /// The policy as it acts; `None` after it has learned.
    acting: Option<CompiledMlp>,
}

/// What a checkpoint holds besides networks, moments, environments and the replay memory.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    updates: u64,
    actor_steps: u64,
    critic_steps: u64,
}

impl Td3 {
    /// Reads and checks the rest of `[agent]`, with the preset for keys that it leaves out, and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or an environment with spaces that TD3 can't serve.
    pub fn from_config(
        document: &mut ConfigDocument,
        setting: &Setting<'_>,
        name: &str,
        preset: Td3Config,
    ) -> Result<Self, ConfigError> {
        let config: Td3Config = document.section_over("agent", &preset)?;
        config.check(document, setting)?;
        let experience = Experience::new(config.experience(), name, SERVES, document, setting)?;
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let observation_len = experience.encoder.outputs();
        let sizes = [&[observation_len], &config.hidden[..], &[experience.actions.width()]].concat();
        let actor = Mlp::uniform(&sizes, config.activation, &mut rng, &device);
        let critics = Critics::new(
            config.critics,
            observation_len,
            &config.hidden,
            config.activation,
            &experience.actions,
            &mut rng,
            &device,
        );
        Ok(Self {
            plain_device: setting.device.clone(),
            experience,
            target_actor: actor.valid(),
            actor,
            target_critics: critics.valid(),
            critics,
            actor_optimizer: Adam::new(AdamConfig::default()),
            critic_optimizer: Adam::new(AdamConfig::default()),
            acting: None,
            device,
            config,
        })
    }

    /// One gradient step of the critics, and of the policy where it is due.
    fn update(&mut self, learning_rate: f64, means: &mut Means) {
        let mut rng = stream(self.experience.seed, "target noise", self.experience.updates);
        let batch = self.experience.sample(0.0);
        let rows = batch.returns.len();
        let taken = batch.actions.as_f32().expect("actions of a Box space");
        let critic_inputs = join(&batch.observations, taken, rows);

        let next = to_tensor(batch.next_observations.clone(), rows, &self.plain_device);
        let mut next_actions = to_vec(mlp(next, self.target_actor.layers(Activation::Tanh)));
        let (std, clip) = (self.config.target_noise_std as f32, self.config.target_noise_clip as f32);
        if std > 0.0 {
            for action in &mut next_actions {
                *action = (*action + (std * rng.normal()).clamp(-clip, clip)).clamp(-1.0, 1.0);
            }
        }
        let next_inputs = join(&batch.next_observations, &next_actions, rows);
        let next_values = self.target_critics.least(next_inputs, rows, &self.plain_device);
        let targets = targets(batch.returns, batch.discounts, &next_values);
        let observations = batch.observations;
        let critic = self.critics.step(
            &mut self.critic_optimizer,
            learning_rate,
            critic_inputs,
            &vec![0; rows],
            &targets,
            &self.device,
        );
        means.add("critic_loss", critic.loss);
        means.add("q_value", critic.value);
        self.experience.updates += 1;
        if !self.experience.updates.is_multiple_of(self.config.policy_delay) {
            return;
        }

        // The policy goes up the first critic's value.
        let outputs = mlp(to_tensor(observations.clone(), rows, &self.device), self.actor.layers(Activation::Tanh));
        let actions = to_vec(outputs.clone().inner());
        let (values, mut slopes) =
            self.critics.least_and_action_gradient(1, &observations, &actions, rows, &self.device);
        slopes.iter_mut().for_each(|slope| *slope /= -(rows as f32));
        let gradients = carry(outputs, slopes, &self.device).backward();
        self.actor = self.actor_optimizer.step(self.actor.clone(), gradients, learning_rate).0;
        let keep = 1.0 - self.config.tau;
        self.target_actor = ema(self.target_actor.clone(), &self.actor, keep);
        self.target_critics = ema(self.target_critics.clone(), &self.critics, keep);
        means.add("actor_loss", -f64::from(values.iter().sum::<f32>()) / rows as f64);
    }
}

impl OffPolicy for Td3 {
    fn experience(&self) -> &Experience {
        &self.experience
    }

    fn collect(&mut self, means: &mut Means) -> Result<(), CoreError> {
        let (actor, acting) = (&self.actor, &mut self.acting);
        self.experience.collect(means, |seen, actions, _| {
            let Buffer::F32(actions) = actions else { unreachable!("the buffer is made for a Box space") };
            let outputs = acting.get_or_insert_with(|| actor.compile()).forward(seen.inputs);
            actions.iter_mut().zip(outputs).for_each(|(action, output)| *action = output.tanh());
        })
    }

    fn learn(&mut self, means: &mut Means) {
        let learning_rate = self.config.learning_rate.value(self.experience.progress());
        (0..self.config.gradient_steps).for_each(|_| self.update(learning_rate, means));
        self.acting = None;
    }
}

impl Agent for Td3 {
    fn step(&self) -> u64 {
        self.experience.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        iterate(self)
    }

    fn policy(&self) -> Box<dyn Policy> {
        Box::new(GreedyActor::new(&self.actor, &self.experience))
    }

    fn state_values(&self, observations: &Buffer) -> Option<Vec<f32>> {
        Some(greedy_values(&self.actor, &self.critics, &self.experience, observations))
    }

    fn export(&self) -> PolicyExport {
        export(&self.actor, &self.experience)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        let Experience { step, updates, .. } = self.experience;
        let state = State {
            step,
            updates,
            actor_steps: save_learned(to, "actor", &self.actor, &self.actor_optimizer)?,
            critic_steps: save_learned(to, "critics", &self.critics, &self.critic_optimizer)?,
        };
        to.module("target-actor.safetensors", &self.target_actor)?;
        to.module("target-critics.safetensors", &self.target_critics)?;
        self.experience.save(to)?;
        to.json("agent.json", &state)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        let target_actor = from.module("target-actor.safetensors", self.target_actor.clone())?;
        let target_critics = from.module("target-critics.safetensors", self.target_critics.clone())?;
        let optimizer = &mut self.actor_optimizer;
        let actor = load_learned(from, "actor", &self.actor, optimizer, state.actor_steps)?;
        let optimizer = &mut self.critic_optimizer;
        let critics = load_learned(from, "critics", &self.critics, optimizer, state.critic_steps)?;
        self.experience.load(from)?;
        (self.actor, self.target_actor) = (actor, target_actor);
        (self.critics, self.target_critics) = (critics, target_critics);
        (self.experience.step, self.experience.updates) = (state.step, state.updates);
        self.acting = None;
        Ok(())
    }
}
