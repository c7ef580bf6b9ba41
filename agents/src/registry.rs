//! The list of algorithms. A new one is a file with a `SPEC` and one line in [`ALGORITHMS`].

use burn::prelude::Device;
use hotfire_core::config::{ConfigDocument, ConfigError};

use crate::{Agent, EnvConfig, a2c, dqn, ppo, pqn, reinforce, sac, td3};

/// Every algorithm of this crate.
#[rustfmt::skip]
pub const ALGORITHMS: &[AlgorithmSpec] = &[
    reinforce::SPEC,
    a2c::SPEC,
    ppo::SPEC,
    dqn::DQN,
    dqn::DDQN,
    dqn::C51,
    dqn::QRDQN,
    dqn::RAINBOW,
    pqn::SPEC,
    sac::SPEC,
    td3::TD3,
    td3::DDPG,
];

/// What an algorithm is made from, besides its own `[agent]` section.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The environments.
    pub env: &'a EnvConfig,
    /// The run's seed.
    pub seed: u64,
    /// The device that learns, without autodiff.
    pub device: &'a Device,
    /// Environment steps of the whole run, for schedules.
    pub total_steps: u64,
}

/// What is registered of an algorithm.
#[derive(Clone, Copy, Debug)]
pub struct AlgorithmSpec {
    /// The name in `agent.algorithm`.
    pub name: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Reads the rest of `[agent]`, checks it, and makes the agent.
    pub make: MakeAgent,
}

/// Makes an agent from a document whose `[agent]` section is next to be read.
pub type MakeAgent = fn(&mut ConfigDocument, &Setting<'_>) -> Result<Box<dyn Agent>, ConfigError>;

/// Takes `agent.algorithm` out of the document and finds it.
///
/// # Errors
/// [`ConfigError`] with the nearest name.
pub fn algorithm(document: &mut ConfigDocument) -> Result<&'static AlgorithmSpec, ConfigError> {
    let name = document.take_tag("agent", "algorithm")?;
    ALGORITHMS.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALGORITHMS.iter().map(|spec| spec.name).collect();
        document.unknown_value("agent.algorithm", &name, &known)
    })
}
