//! Soft actor-critic: the policy maximises return and entropy at once, learned from a replay memory.
//!
//! - Box actions: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications",
//!   <https://arxiv.org/abs/1812.05905>: a Gaussian squashed by `tanh`, two critics, and a temperature that is learned
//!   so that the entropy stays near a target.
//! - Discrete actions: Christodoulou 2019, "Soft actor-critic for discrete action settings",
//!   <https://arxiv.org/abs/1910.07207>: expectations over the actions take the place of draws.
//!
//! Departures: the learned parameter is the logarithm of the temperature and the loss is linear in it, as in most
//! published code; exploration noise may be added to actions, for tasks where independent draws never find a reward.

use burn::module::{Module, Param};
use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::{Means, Metrics};
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::Buffer;
use hotfire_nn::distributions::categorical;
use hotfire_nn::distributions::squashed::SquashedSample;
use hotfire_nn::{Activation, Adam, AdamConfig, CompiledMlp, Mlp, ema};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{load_learned, save_learned};
use crate::experience::{ActionMap, Experience, ExperienceConfig, Noise, OffPolicy, Serves, iterate};
use crate::host_loss::{carry, to_tensor, to_vec};
use crate::off_policy::{Critics, GreedyActor, export, greedy_values, join, targets};
use crate::on_policy::Check;
use crate::registry::{AlgorithmSpec, Setting};
use crate::{Agent, Policy, PolicyExport};

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "sac",
    summary: "soft actor-critic, for Box and Discrete actions",
    source: "Haarnoja et al. 2018, arXiv:1812.05905; Christodoulou 2019, arXiv:1910.07207",
    make: |document, setting| Ok(Box::new(Sac::from_config(document, setting)?)),
};

const SERVES: Serves = Serves { boxes: true, discrete: true, images: false };

/// The share of the largest entropy that is the target for Discrete actions if the config names none.
const DISCRETE_ENTROPY: f64 = 0.98;

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SacConfig {
    /// Adam's step size, for the policy, the critics and the temperature.
    pub learning_rate: Schedule,
    /// Discount.
    pub gamma: f64,
    /// How far a gradient step moves the target critics towards the critics.
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
    /// Steps summed into a return before the target critics' value; the entropy of those in between is left out.
    pub n_step: usize,
    /// The temperature, or where it starts if it is learned.
    pub temperature: f64,
    /// Whether the temperature is learned.
    pub learn_temperature: bool,
    /// The entropy that a learned temperature aims at, for Discrete actions from 0 to below the logarithm of their number.
    /// Without one: minus the number of elements of a Box action, or 0.98 of the largest entropy of Discrete actions.
    pub target_entropy: Option<f64>,
    /// What is added to Box actions while experience is collected: `none`, `gaussian` or `ou`.
    pub noise: Noise,
    /// Scale of the noise; an action's range is 2.
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

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(3e-4),
            gamma: 0.99,
            tau: 0.005,
            batch_size: 256,
            replay_capacity: 1_000_000,
            learning_starts: 100,
            train_freq: 1,
            gradient_steps: 1,
            n_step: 1,
            temperature: 1.0,
            learn_temperature: true,
            target_entropy: None,
            noise: Noise::None,
            noise_std: 0.1,
            hidden: vec![256, 256],
            activation: Activation::Relu,
            checkpoint_replay: true,
            replay_directory: None,
        }
    }
}

impl SacConfig {
    fn check(&self, document: &ConfigDocument, setting: &Setting<'_>) -> Result<(), ConfigError> {
        let check = Check { document };
        check.schedule("learning_rate", self.learning_rate)?;
        check.positive_share("tau", self.tau)?;
        check.positive("temperature", self.temperature)?;
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

/// The entropy's weight in the objective.
#[derive(Module, Debug)]
struct Temperature {
    /// Its logarithm: `[1]`.
    log: Param<Tensor<1>>,
}

/// The agent.
pub struct Sac {
    config: SacConfig,
    target_entropy: f32,
    device: Device,
    plain_device: Device,
    experience: Experience,
    /// Observations to means and log standard deviations `[N, 2 A]`, or to logits `[N, A]`.
    actor: Mlp,
    critics: Critics,
    target_critics: Critics,
    temperature: Temperature,
    actor_optimizer: Adam,
    critic_optimizer: Adam,
    temperature_optimizer: Adam,
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
    temperature_steps: u64,
}

/// The policy at a batch of observations, and what it would have the critics value.
enum Choice {
    /// Drawn actions.
    Drawn(SquashedSample),
    /// Log-probabilities `[B, A]` of all actions.
    All(Vec<f32>),
}

impl Sac {
    /// Reads and checks the rest of `[agent]`, and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or an environment with spaces that SAC can't serve.
    pub fn from_config(document: &mut ConfigDocument, setting: &Setting<'_>) -> Result<Self, ConfigError> {
        let config: SacConfig = document.section("agent")?;
        config.check(document, setting)?;
        let experience = Experience::new(config.experience(), SPEC.name, SERVES, document, setting)?;
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let width = experience.actions.width();
        let (outputs, target_entropy) = match experience.actions {
            ActionMap::Box { .. } => (2 * width, -(width as f64)),
            ActionMap::Discrete { .. } => {
                let most = (width as f64).ln();
                // Beyond, the temperature would rise or fall for ever.
                if let Some(target) = config.target_entropy.filter(|target| !(0.0..most).contains(target)) {
                    let expected = format!("a number from 0 to below {most:.4}, the entropy of even chances");
                    return Check { document }.refuse("target_entropy", &expected, target);
                }
                (width, DISCRETE_ENTROPY * most)
            }
        };
        let observation_len = experience.encoder.outputs();
        let sizes = [&[observation_len], &config.hidden[..], &[outputs]].concat();
        let actor = Mlp::uniform(&sizes, config.activation, &mut rng, &device);
        let critics =
            Critics::new(2, observation_len, &config.hidden, config.activation, &experience.actions, &mut rng, &device);
        Ok(Self {
            target_entropy: config.target_entropy.unwrap_or(target_entropy) as f32,
            plain_device: setting.device.clone(),
            experience,
            actor,
            target_critics: critics.valid(),
            critics,
            temperature: Temperature {
                log: Param::from_tensor(Tensor::from_floats([config.temperature.ln() as f32], &device)),
            },
            actor_optimizer: Adam::new(AdamConfig::default()),
            critic_optimizer: Adam::new(AdamConfig::default()),
            temperature_optimizer: Adam::new(AdamConfig::default()),
            acting: None,
            device,
            config,
        })
    }

    /// Interprets the policy's outputs; draws come from the stream `name` of this update.
    fn choose(&self, outputs: &[f32], name: &str) -> Choice {
        let width = self.experience.actions.width();
        match self.experience.actions {
            ActionMap::Box { .. } => {
                let rng = &mut stream(self.experience.seed, name, self.experience.updates);
                Choice::Drawn(SquashedSample::draw(outputs, width, rng))
            }
            ActionMap::Discrete { .. } => Choice::All(outputs.chunks_exact(width).flat_map(log_softmax).collect()),
        }
    }

    /// One gradient step of everything.
    fn update(&mut self, learning_rate: f64, means: &mut Means) {
        let log_temperature = self.temperature.log.val().inner().into_scalar::<f32>();
        let temperature = log_temperature.exp();
        let map = self.experience.actions.clone();
        let width = map.width();
        let batch = self.experience.sample(0.0);
        let rows = batch.returns.len();
        let (returns, discounts) = (batch.returns.to_vec(), batch.discounts.to_vec());
        let (observations, next_observations) = (batch.observations, batch.next_observations);
        let taken = map.columns(batch.actions);
        let critic_inputs = match batch.actions {
            Buffer::F32(actions) => join(&observations, actions, rows),
            _ => observations.clone(),
        };

        // Targets: the least value of what the policy would do next, with its entropy.
        let next = to_vec(self.actor.valid().forward(to_tensor(next_observations.clone(), rows, &self.plain_device)));
        let next_values = match self.choose(&next, "next actions") {
            Choice::Drawn(sample) => {
                let inputs = join(&next_observations, &sample.actions, rows);
                let mut values = self.target_critics.least(inputs, rows, &self.plain_device);
                values.iter_mut().zip(&sample.log_probs).for_each(|(value, log_prob)| *value -= temperature * log_prob);
                values
            }
            Choice::All(log_probs) => {
                let values = self.target_critics.least(next_observations, rows, &self.plain_device);
                soft_values(&log_probs, &values, temperature, width)
            }
        };
        let targets = targets(&returns, &discounts, &next_values);
        let critic =
            self.critics.step(&mut self.critic_optimizer, learning_rate, critic_inputs, &taken, &targets, &self.device);

        // The policy: down `temperature * log_prob - value`.
        let outputs = self.actor.forward(to_tensor(observations.clone(), rows, &self.device));
        let share = 1.0 / rows as f32;
        let (entropy, gradient, actor_loss) = match self.choose(&to_vec(outputs.clone().inner()), "policy actions") {
            Choice::Drawn(sample) => {
                let (values, mut slopes) =
                    self.critics.least_and_action_gradient(2, &observations, &sample.actions, rows, &self.device);
                slopes.iter_mut().for_each(|slope| *slope *= -share);
                let entropy = -share * sample.log_probs.iter().sum::<f32>();
                let loss = -temperature * entropy - share * values.iter().sum::<f32>();
                (entropy, sample.gradient(temperature * share, &slopes), loss)
            }
            Choice::All(log_probs) => {
                let values = self.critics.valid().least(observations, rows, &self.plain_device);
                let entropy = -share * log_probs.iter().map(|log_prob| log_prob.exp() * log_prob).sum::<f32>();
                let loss = -share * soft_values(&log_probs, &values, temperature, width).iter().sum::<f32>();
                let mut gradient = soft_value_gradient(&log_probs, &values, temperature, width);
                gradient.iter_mut().for_each(|g| *g *= -share);
                (entropy, gradient, loss)
            }
        };
        let gradients = carry(outputs, gradient, &self.device).backward();
        self.actor = self.actor_optimizer.step(self.actor.clone(), gradients, learning_rate).0;

        if self.config.learn_temperature {
            // The loss `log_temperature * (entropy - target)`: more weight while there is too little entropy.
            let loss = self.temperature.log.val().mul_scalar(entropy - self.target_entropy);
            let gradients = loss.sum().backward();
            self.temperature = self.temperature_optimizer.step(self.temperature.clone(), gradients, learning_rate).0;
        }
        self.target_critics = ema(self.target_critics.clone(), &self.critics, 1.0 - self.config.tau);
        self.experience.updates += 1;

        means.add("critic_loss", critic.loss);
        means.add("actor_loss", f64::from(actor_loss));
        means.add("q_value", critic.value);
        means.add("entropy", f64::from(entropy));
        means.add("temperature", f64::from(temperature));
    }
}

/// `[A]` logits to log-probabilities.
fn log_softmax(logits: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_total = logits.iter().map(|logit| (logit - highest).exp()).sum::<f32>().ln();
    logits.iter().map(move |logit| logit - highest - log_total)
}

/// Expected values with entropy `[B]`, from log-probabilities and values `[B, A]`.
fn soft_values(log_probs: &[f32], values: &[f32], temperature: f32, width: usize) -> Vec<f32> {
    let rows = log_probs.chunks_exact(width).zip(values.chunks_exact(width));
    let terms = |(log_probs, values): (&[f32], &[f32])| {
        log_probs.iter().zip(values).map(|(p, value)| p.exp() * (value - temperature * p)).sum()
    };
    rows.map(terms).collect()
}

/// The gradient `[B, A]` of the sum of [`soft_values`] by the logits.
fn soft_value_gradient(log_probs: &[f32], values: &[f32], temperature: f32, width: usize) -> Vec<f32> {
    let mean = soft_values(log_probs, values, temperature, width);
    let terms = log_probs.iter().zip(values).enumerate();
    terms.map(|(i, (p, value))| p.exp() * (value - temperature * p - mean[i / width])).collect()
}

impl OffPolicy for Sac {
    fn experience(&self) -> &Experience {
        &self.experience
    }

    fn collect(&mut self, means: &mut Means) -> Result<(), CoreError> {
        let (actor, acting, map) = (&self.actor, &mut self.acting, self.experience.actions.clone());
        self.experience.collect(means, |seen, actions, rng| {
            let outputs = acting.get_or_insert_with(|| actor.compile()).forward(seen.inputs);
            match (actions, &map) {
                (Buffer::F32(actions), _) => {
                    actions.copy_from_slice(&SquashedSample::draw(outputs, map.width(), rng).actions);
                }
                (Buffer::I32(actions), ActionMap::Discrete { n, start }) => {
                    for (action, logits) in actions.iter_mut().zip(outputs.chunks_exact(*n)) {
                        *action = start + categorical::sample(logits, rng).0;
                    }
                }
                _ => unreachable!("the buffer is made for the action space"),
            }
        })
    }

    fn learn(&mut self, means: &mut Means) {
        let learning_rate = self.config.learning_rate.value(self.experience.progress());
        (0..self.config.gradient_steps).for_each(|_| self.update(learning_rate, means));
        self.acting = None;
    }
}

impl Agent for Sac {
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
            temperature_steps: save_learned(to, "temperature", &self.temperature, &self.temperature_optimizer)?,
        };
        to.module("target-critics.safetensors", &self.target_critics)?;
        self.experience.save(to)?;
        to.json("agent.json", &state)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        let target_critics = from.module("target-critics.safetensors", self.target_critics.clone())?;
        let optimizer = &mut self.actor_optimizer;
        let actor = load_learned(from, "actor", &self.actor, optimizer, state.actor_steps)?;
        let optimizer = &mut self.critic_optimizer;
        let critics = load_learned(from, "critics", &self.critics, optimizer, state.critic_steps)?;
        let optimizer = &mut self.temperature_optimizer;
        let temperature = load_learned(from, "temperature", &self.temperature, optimizer, state.temperature_steps)?;
        self.experience.load(from)?;
        (self.actor, self.critics, self.target_critics) = (actor, critics, target_critics);
        // One that is not learned is a setting, which may have changed.
        if self.config.learn_temperature {
            self.temperature = temperature;
        }
        (self.experience.step, self.experience.updates) = (state.step, state.updates);
        self.acting = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_soft_values_equals_finite_differences() {
        let logits = [0.3f32, -1.0, 0.8, 2.0, 0.1, -0.4];
        let values = [1.0f32, 2.0, -0.5, 0.0, 3.0, 1.5];
        let log_probs = |logits: &[f32]| -> Vec<f32> { logits.chunks_exact(3).flat_map(log_softmax).collect() };
        let gradient = soft_value_gradient(&log_probs(&logits), &values, 0.7, 3);
        for i in 0..logits.len() {
            let moved = |by: f32| -> f32 {
                let mut logits = logits;
                logits[i] += by;
                soft_values(&log_probs(&logits), &values, 0.7, 3).iter().sum()
            };
            let want = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((gradient[i] - want).abs() < 1e-3, "logit {i}: {} against {want}", gradient[i]);
        }
    }
}
