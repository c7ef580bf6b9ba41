//! Policy and value networks, as a Burn module for learning and compiled for acting.

use burn::module::Param;
use burn::prelude::*;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, Dtype, Space};
use hotfire_nn::distributions::{categorical, gaussian};
use hotfire_nn::ops::gru::Sequences;
use hotfire_nn::{Activation, CompiledGru, CompiledMlp, CompiledTorso, Gru, Mlp, Torso};

use crate::Policy;
use crate::normalize::ObservationNormalizer;
use crate::observation::{EnvView, ObservationEncoder};

/// How an action is drawn from the actor's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One choice (`Discrete`) or several at once (`MultiDiscrete`): the output holds the logits of one choice after
    /// the other.
    Categorical {
        /// Number of alternatives of each choice.
        sizes: Vec<usize>,
        /// The least action.
        start: i32,
    },
    /// A real vector: the output holds the means, the standard deviations are parameters of their own.
    Gaussian {
        /// Lower bounds; the environment gets the action clipped to them.
        low: Vec<f32>,
        /// Upper bounds.
        high: Vec<f32>,
    },
}

impl Head {
    /// The head for an action space; `None` if it is neither `Discrete`, `MultiDiscrete` nor a `Box` of floats.
    pub fn of(space: &Space) -> Option<Self> {
        match space {
            Space::Discrete { n, start } => Some(Self::Categorical { sizes: vec![*n as usize], start: *start }),
            Space::MultiDiscrete { nvec } => {
                Some(Self::Categorical { sizes: nvec.iter().map(|n| *n as usize).collect(), start: 0 })
            }
            Space::Box { low, high, dtype: Dtype::F32, .. } => {
                Some(Self::Gaussian { low: low.clone(), high: high.clone() })
            }
            _ => None,
        }
    }

    /// Width of the actor's output.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Categorical { sizes, .. } => sizes.iter().sum(),
            Self::Gaussian { low, .. } => low.len(),
        }
    }
}

/// Dense networks for policy and value, behind a torso and a memory that both share where there are such.
#[derive(Module, Debug)]
pub struct ActorCritic {
    /// Encoded observations `[N, D]` to features `[N, F]`.
    pub torso: Torso,
    /// Features over time to states `[N, H]` that remember them.
    pub memory: Option<Gru>,
    /// Features or states to logits or means `[N, A]`.
    pub actor: Mlp,
    /// Features or states to values `[N, V]`.
    pub critic: Mlp,
    /// Logarithm of the standard deviation `[A]` of a Gaussian policy.
    pub log_std: Option<Param<Tensor<1>>>,
}

/// Sizes of an [`ActorCritic`].
#[derive(Clone, Copy, Debug)]
pub struct ActorCriticShape<'a> {
    /// Units of the memory; none for a feed-forward policy.
    pub recurrent_units: Option<usize>,
    /// Widths of the hidden layers; a convolutional torso has a dense layer of its own, and the heads are linear.
    pub hidden: &'a [usize],
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Number of value heads `V`.
    pub value_heads: usize,
    /// Logarithm of a Gaussian policy's standard deviation at the start.
    pub initial_log_std: f64,
}

impl ActorCritic {
    /// Orthogonal networks; the policy starts near uniform (output gain 0.01).
    pub fn new(torso: Torso, head: &Head, shape: ActorCriticShape<'_>, rng: &mut StreamRng, device: &Device) -> Self {
        let memory = shape.recurrent_units.map(|units| Gru::orthogonal(torso.features(), units, rng, device));
        let features = shape.recurrent_units.unwrap_or(torso.features());
        let hidden = if torso.is_identity() { shape.hidden } else { &[] };
        let sizes = |outputs| [&[features], hidden, &[outputs]].concat();
        let outputs = head.outputs();
        Self {
            actor: Mlp::orthogonal(&sizes(outputs), shape.activation, 0.01, rng, device),
            critic: Mlp::orthogonal(&sizes(shape.value_heads), shape.activation, 1.0, rng, device),
            log_std: matches!(head, Head::Gaussian { .. })
                .then(|| Param::from_tensor(Tensor::full([outputs], shape.initial_log_std, device))),
            memory,
            torso,
        }
    }

    /// The policy's output `[M, A]` and values `[M, V]` for encoded observations `[M, D]`; a memory needs to know how
    /// the rows follow one another.
    pub fn forward(&self, x: Tensor<2>, sequences: Option<Sequences<'_>>) -> (Tensor<2>, Tensor<2>) {
        let mut features = self.torso.forward(x);
        if let (Some(memory), Some(sequences)) = (&self.memory, sequences) {
            features = memory.forward(features, sequences);
        }
        (self.actor.forward(features.clone()), self.critic.forward(features))
    }

    /// A snapshot for acting.
    pub fn compile(&self, head: &Head) -> CompiledActorCritic {
        CompiledActorCritic {
            torso: self.torso.compile(),
            memory: self.memory.as_ref().map(Gru::compile),
            actor: self.actor.compile(),
            critic: self.critic.compile(),
            log_std: self.log_std.as_ref().map_or_else(Vec::new, |log_std| {
                log_std.val().into_data().try_into_vec().expect("parameters are 32-bit floats")
            }),
            head: head.clone(),
            logits: Vec::new(),
        }
    }
}

/// An [`ActorCritic`] as plain matrices.
///
/// `states` holds what a memory remembers of each environment, `[N, H]`, zeros at the start of an episode; every call
/// moves it on by one step. It is empty for a feed-forward policy.
#[derive(Clone, Debug)]
pub struct CompiledActorCritic {
    torso: CompiledTorso,
    memory: Option<CompiledGru>,
    actor: CompiledMlp,
    critic: CompiledMlp,
    log_std: Vec<f32>,
    head: Head,
    /// A row of masked logits.
    logits: Vec<f32>,
}

impl CompiledActorCritic {
    /// Draws actions `[N, K]` for encoded observations `[N, D]` and writes their log-probabilities `[N]`.
    pub fn sample(
        &mut self,
        observations: &[f32],
        states: &mut [f32],
        masks: Option<&[bool]>,
        rng: &mut StreamRng,
        actions: &mut Buffer,
        log_probs: &mut [f32],
    ) {
        let features = features(&mut self.torso, self.memory.as_ref(), observations, states);
        let output = self.actor.forward(features);
        match (&self.head, actions) {
            (Head::Categorical { sizes, start }, Buffer::I32(actions)) => {
                log_probs.fill(0.0);
                for_each_choice(output, masks, sizes, &mut self.logits, |row, choice, logits| {
                    let (action, drawn) = categorical::sample(logits, rng);
                    actions[row * sizes.len() + choice] = start + action;
                    log_probs[row] += drawn;
                });
            }
            (Head::Gaussian { low, .. }, Buffer::F32(actions)) => {
                let len = low.len();
                for (i, (mean, log_prob)) in output.chunks_exact(len).zip(log_probs).enumerate() {
                    *log_prob = gaussian::sample(mean, &self.log_std, rng, &mut actions[i * len..][..len]);
                }
            }
            _ => unreachable!("the buffer is made for the head's action space"),
        }
    }

    /// The policy's output `[N, A]` for encoded observations `[N, D]`.
    pub(crate) fn output(&mut self, observations: &[f32], states: &mut [f32]) -> &[f32] {
        self.actor.forward(features(&mut self.torso, self.memory.as_ref(), observations, states))
    }

    /// Values `[N, V]` of encoded observations `[N, D]`.
    pub fn values(&mut self, observations: &[f32], states: &mut [f32]) -> &[f32] {
        self.critic.forward(features(&mut self.torso, self.memory.as_ref(), observations, states))
    }

    /// Most probable actions `[N, K]` for encoded observations `[N, D]`.
    pub fn mode(&mut self, observations: &[f32], states: &mut [f32], masks: Option<&[bool]>, actions: &mut Buffer) {
        let output = self.actor.forward(features(&mut self.torso, self.memory.as_ref(), observations, states));
        match (&self.head, actions) {
            (Head::Categorical { sizes, start }, Buffer::I32(actions)) => {
                for_each_choice(output, masks, sizes, &mut self.logits, |row, choice, logits| {
                    actions[row * sizes.len() + choice] = start + categorical::mode(logits);
                });
            }
            (Head::Gaussian { low, high }, Buffer::F32(actions)) => clip_actions(output, low, high, actions),
            _ => unreachable!("the buffer is made for the head's action space"),
        }
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Units `H` of the memory; 0 without one.
    pub fn units(&self) -> usize {
        self.memory.as_ref().map_or(0, CompiledGru::units)
    }

    /// Number of value heads `V`.
    pub fn value_heads(&self) -> usize {
        self.critic.outputs()
    }
}

fn features<'a>(
    torso: &'a mut CompiledTorso,
    memory: Option<&CompiledGru>,
    observations: &'a [f32],
    states: &'a mut [f32],
) -> &'a [f32] {
    let features = torso.forward(observations);
    match memory {
        Some(memory) => {
            memory.step(features, states);
            states
        }
        None => features,
    }
}

/// Calls `choose` with the row, the choice and its logits, for all rows `[N, A]`.
fn for_each_choice(
    output: &[f32],
    masks: Option<&[bool]>,
    sizes: &[usize],
    masked: &mut Vec<f32>,
    mut choose: impl FnMut(usize, usize, &[f32]),
) {
    let width: usize = sizes.iter().sum();
    masked.resize(width, 0.0);
    for (row, logits) in output.chunks_exact(width).enumerate() {
        let logits = match masks {
            Some(masks) => {
                categorical::mask_logits(logits, &masks[row * width..][..width], masked);
                &masked[..]
            }
            None => logits,
        };
        let mut at = 0;
        for (choice, size) in sizes.iter().enumerate() {
            choose(row, choice, &logits[at..at + size]);
            at += size;
        }
    }
}

/// Forgets what was remembered of environments whose episode ended: `states: [N, H]`.
pub(crate) fn forget_ended(states: &mut [f32], terminated: &[bool], truncated: &[bool]) {
    if states.is_empty() {
        return;
    }
    let units = states.len() / terminated.len();
    for (n, state) in states.chunks_exact_mut(units).enumerate() {
        if terminated[n] || truncated[n] {
            state.fill(0.0);
        }
    }
}

/// Writes the rows `[N, A]` clipped to the bounds `[A]`.
pub(crate) fn clip_actions(actions: &[f32], low: &[f32], high: &[f32], out: &mut [f32]) {
    for (row, out) in actions.chunks_exact(low.len()).zip(out.chunks_exact_mut(low.len())) {
        for a in 0..low.len() {
            out[a] = row[a].clamp(low[a], high[a]);
        }
    }
}

/// The greedy policy of a [`CompiledActorCritic`], with the observations normalised as in training.
#[derive(Clone, Debug)]
pub(crate) struct GreedyActorCritic {
    net: CompiledActorCritic,
    encoder: ObservationEncoder,
    normalizer: Option<ObservationNormalizer>,
    states: Vec<f32>,
}

impl GreedyActorCritic {
    pub fn new(
        net: CompiledActorCritic,
        encoder: ObservationEncoder,
        normalizer: Option<ObservationNormalizer>,
    ) -> Self {
        Self { net, encoder, normalizer, states: Vec::new() }
    }
}

impl Policy for GreedyActorCritic {
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer) {
        let rows = view.terminated.len();
        let mut input = vec![0.0; rows * self.encoder.outputs()];
        match (&self.normalizer, view.observations) {
            (Some(normalizer), Buffer::F32(observations)) => normalizer.normalize(observations, &mut input),
            (_, observations) => self.encoder.encode(observations, &mut input),
        }
        self.states.resize(rows * self.net.units(), 0.0);
        forget_ended(&mut self.states, view.terminated, view.truncated);
        self.net.mode(&input, &mut self.states, view.action_masks, actions);
    }
}
