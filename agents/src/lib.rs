//! Agents: one file per algorithm, and what they share: rollouts, advantage estimation, normalisation, evaluation.
//!
//! An algorithm implements [`Agent`]; [`AgentTask`] makes it a task of the run shell, with evaluation and pictures.
//! [`ALGORITHMS`] lists the algorithms.

pub mod a2c;
mod actor_critic;
mod agent;
mod checkpoint;
pub mod dqn;
mod env_config;
mod evaluate;
mod experience;
mod export;
pub mod gae;
mod host_loss;
pub mod normalize;
mod observation;
mod off_policy;
mod on_policy;
mod policy_gradient;
pub mod ppo;
pub mod pqn;
pub mod q_head;
pub mod q_network;
mod registry;
pub mod reinforce;
pub mod replay;
pub mod rnd;
pub mod rollout;
pub mod sac;
mod task;
pub mod td3;

pub use actor_critic::{ActorCritic, ActorCriticShape, CompiledActorCritic, Head};
pub use agent::{Agent, Policy};
pub use env_config::{EnvConfig, open_video};
pub use evaluate::{evaluate, record_episode};
pub use export::{ExportExample, ExportOutput, PolicyExport};
pub use observation::{EnvView, ObservationEncoder};
pub use on_policy::Recurrent;
pub use registry::{ALGORITHMS, AlgorithmSpec, MakeAgent, Setting, algorithm};
pub use task::AgentTask;
