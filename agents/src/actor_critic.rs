//! Policy and value networks, as a Burn module for learning and compiled for acting.

use burn::module::Param;
use burn::prelude::*;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, Space};
use hotfire_nn::distributions::{categorical, gaussian};
use hotfire_nn::{Activation, CompiledMlp, CompiledTorso, Mlp, Torso};

use crate::Policy;
use crate::normalize::ObservationNormalizer;
use crate::observation::{EnvView, ObservationEncoder};

/// How an action is drawn from the actor's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One of `n` actions, numbered from `start`: the output holds logits.
    Categorical {
        /// Number of actions.
        n: usize,
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
    /// The head for an action space; `None` if it is neither `Discrete` nor a `Box` of floats.
    pub fn of(space: &Space) -> Option<Self> {
        match space {
            Space::Discrete { n, start } => Some(Self::Categorical { n: *n as usize, start: *start }),
            Space::Box { low, high, dtype: hotfire_envs::Dtype::F32, .. } => {
                Some(Self::Gaussian { low: low.clone(), high: high.clone() })
            }
            _ => None,
        }
    }

    /// Width of the actor's output.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Categorical { n, .. } => *n,
            Self::Gaussian { low, .. } => low.len(),
        }
    }
}

/// Dense networks for policy and value, behind a torso that both share where there is one.
#[derive(Module, Debug)]
pub struct ActorCritic {
    /// Encoded observations `[N, D]` to features `[N, F]`.
    pub torso: Torso,
    /// Features to logits or means `[N, A]`.
    pub actor: Mlp,
    /// Features to values `[N, 1]`.
    pub critic: Mlp,
    /// Logarithm of the standard deviation `[A]` of a Gaussian policy.
    pub log_std: Option<Param<Tensor<1>>>,
}

impl ActorCritic {
    /// Orthogonal networks with `hidden` layers; the policy starts near uniform (output gain 0.01).
    ///
    /// A convolutional torso has a dense layer of its own: the heads behind it are linear.
    pub fn new(
        torso: Torso,
        head: &Head,
        hidden: &[usize],
        activation: Activation,
        initial_log_std: f64,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let hidden = if torso.is_identity() { hidden } else { &[] };
        let sizes = |outputs| [&[torso.features()], hidden, &[outputs]].concat();
        let outputs = head.outputs();
        Self {
            actor: Mlp::orthogonal(&sizes(outputs), activation, 0.01, rng, device),
            critic: Mlp::orthogonal(&sizes(1), activation, 1.0, rng, device),
            log_std: matches!(head, Head::Gaussian { .. })
                .then(|| Param::from_tensor(Tensor::full([outputs], initial_log_std, device))),
            torso,
        }
    }

    /// A snapshot for acting.
    pub fn compile(&self, head: &Head) -> CompiledActorCritic {
        CompiledActorCritic {
            torso: self.torso.compile(),
            actor: self.actor.compile(),
            critic: self.critic.compile(),
            log_std: self.log_std.as_ref().map_or_else(Vec::new, |log_std| {
                log_std.val().into_data().try_into_vec().expect("parameters are 32-bit floats")
            }),
            head: head.clone(),
        }
    }
}

/// An [`ActorCritic`] as plain matrices.
#[derive(Clone, Debug)]
pub struct CompiledActorCritic {
    torso: CompiledTorso,
    actor: CompiledMlp,
    critic: CompiledMlp,
    log_std: Vec<f32>,
    head: Head,
}

impl CompiledActorCritic {
    /// Draws actions `[N, A]` for observations `[N, D]` and writes their log-probabilities `[N]`.
    pub fn sample(&mut self, observations: &[f32], rng: &mut StreamRng, actions: &mut Buffer, log_probs: &mut [f32]) {
        let output = self.actor.forward(self.torso.forward(observations));
        let rows = output.chunks_exact(self.head.outputs()).zip(log_probs).enumerate();
        match (&self.head, actions) {
            (Head::Categorical { start, .. }, Buffer::I32(actions)) => {
                for (i, (logits, log_prob)) in rows {
                    let (action, drawn) = categorical::sample(logits, rng);
                    (actions[i], *log_prob) = (start + action, drawn);
                }
            }
            (Head::Gaussian { .. }, Buffer::F32(actions)) => {
                let len = self.head.outputs();
                for (i, (mean, log_prob)) in rows {
                    *log_prob = gaussian::sample(mean, &self.log_std, rng, &mut actions[i * len..][..len]);
                }
            }
            _ => unreachable!("the buffer is made for the head's action space"),
        }
    }

    /// Values `[N]` of observations `[N, D]`.
    pub fn values(&mut self, observations: &[f32]) -> &[f32] {
        self.critic.forward(self.torso.forward(observations))
    }

    /// Most probable actions `[N, A]` for observations `[N, D]`.
    pub fn mode(&mut self, observations: &[f32], actions: &mut Buffer) {
        let output = self.actor.forward(self.torso.forward(observations));
        match (&self.head, actions) {
            (Head::Categorical { n, start }, Buffer::I32(actions)) => {
                for (logits, action) in output.chunks_exact(*n).zip(actions) {
                    *action = start + categorical::mode(logits);
                }
            }
            (Head::Gaussian { low, high }, Buffer::F32(actions)) => clip_actions(output, low, high, actions),
            _ => unreachable!("the buffer is made for the head's action space"),
        }
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
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
    pub net: CompiledActorCritic,
    pub encoder: ObservationEncoder,
    pub normalizer: Option<ObservationNormalizer>,
}

impl Policy for GreedyActorCritic {
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer) {
        let mut rows = vec![0.0; view.terminated.len() * self.encoder.outputs()];
        match (&self.normalizer, view.observations) {
            (Some(normalizer), Buffer::F32(observations)) => normalizer.normalize(observations, &mut rows),
            (_, observations) => self.encoder.encode(observations, &mut rows),
        }
        self.net.mode(&rows, actions);
    }
}
