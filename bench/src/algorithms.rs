//! Training with every registered algorithm, environment steps a second: rollout and update together, default settings,
//! CartPole-v1 or, where an algorithm needs continuous actions, Pendulum-v1.

use burn::prelude::Device;
use hotfire_agents::{ALGORITHMS, Agent, AlgorithmSpec, EnvConfig, Setting};
use hotfire_core::config::{ConfigDocument, ConfigError};

use crate::workload::Problem;
use crate::{Prepared, Workload};

/// Steps within which every algorithm learns for the first time.
const WARM_UP: u64 = 50_000;

/// Every algorithm.
pub fn workloads() -> Vec<Workload> {
    let training =
        |spec: &'static AlgorithmSpec| Workload::new("algorithm", spec.name, "env steps", move || training(spec));
    ALGORITHMS.iter().map(training).collect()
}

/// The agent with its default settings.
///
/// # Errors
/// If it takes neither CartPole-v1 nor Pendulum-v1.
pub fn default_agent(spec: &AlgorithmSpec) -> Result<Box<dyn Agent>, ConfigError> {
    let make = |id| {
        let env = format!("[env]\nid = \"{id}\"\n[agent]\n");
        let mut document = ConfigDocument::parse(spec.name, &env, &[])?;
        let env = EnvConfig::read(&mut document)?;
        // Schedules stay near their start: a bench has no last step.
        let setting = Setting { env: &env, seed: 0, device: &Device::flex(), total_steps: 1 << 40 };
        (spec.make)(&mut document, &setting)
    };
    make("CartPole-v1").or_else(|_| make("Pendulum-v1"))
}

/// An agent that has begun to learn.
fn training(spec: &AlgorithmSpec) -> Result<Prepared, Problem> {
    let mut agent = default_agent(spec)?;
    while !agent.iterate()?.iter().any(|(key, _)| key.contains("loss")) {
        if agent.step() > WARM_UP {
            return Err(format!("did not learn in {WARM_UP} steps").into());
        }
    }
    let before = agent.step();
    agent.iterate()?;
    let units = (agent.step() - before) as usize;
    Ok(Prepared::new(units, move || {
        agent.iterate().expect("it was iterated before");
    }))
}
