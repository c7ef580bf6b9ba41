//! Saving and loading a checkpoint with all its checksums and syncs: of an agent with small networks, of one with a
//! filled replay memory, and of a model of 1.7 million parameters.

use std::path::Path;

use hotfire_agents::{ALGORITHMS, Agent};
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_generative::{MODELS, Model};
use tempfile::TempDir;

use crate::algorithms::default_agent;
use crate::models::default_model;
use crate::workload::Problem;
use crate::{Prepared, Workload};

/// What can be saved.
enum Learner {
    Agent(Box<dyn Agent>),
    Model(Box<dyn Model>),
}

impl Learner {
    /// The registered learner of this name after its first iteration.
    fn new(name: &str) -> Result<Self, Problem> {
        if let Some(spec) = ALGORITHMS.iter().find(|spec| spec.name == name) {
            let mut agent = default_agent(spec)?;
            agent.iterate()?;
            return Ok(Self::Agent(agent));
        }
        let spec = MODELS.iter().find(|spec| spec.name == name).ok_or("not in a registry")?;
        let mut model = default_model(spec, "")?;
        model.iterate()?;
        Ok(Self::Model(model))
    }

    fn save(&self, dir: &Path) -> Result<CheckpointReader, CoreError> {
        let checkpoints = dir.join("checkpoints");
        if checkpoints.exists() {
            std::fs::remove_dir_all(&checkpoints).map_err(CoreError::io(&checkpoints, "remove"))?;
        }
        let mut writer = CheckpointWriter::create(&checkpoints, 1)?;
        match self {
            Self::Agent(agent) => agent.save(&mut writer),
            Self::Model(model) => model.save(&mut writer),
        }?;
        CheckpointReader::open(writer.commit()?)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        match self {
            Self::Agent(agent) => agent.load(from),
            Self::Model(model) => model.load(from),
        }
    }
}

/// Both, for three learners.
pub fn workloads() -> Vec<Workload> {
    let both = |name: &'static str| {
        let set_up = move || -> Result<(Learner, TempDir), Problem> { Ok((Learner::new(name)?, tempfile::tempdir()?)) };
        let save = move || {
            let (learner, dir) = set_up()?;
            learner.save(dir.path())?;
            Ok(Prepared::new(1, move || _ = learner.save(dir.path()).expect("it was saved before")))
        };
        let load = move || {
            let (mut learner, dir) = set_up()?;
            let path = learner.save(dir.path())?.path().to_owned();
            Ok(Prepared::new(1, move || {
                let checkpoint = CheckpointReader::open(&path).expect("it was just written");
                learner.load(&checkpoint).expect("its own checkpoint");
                // The folder lives as long as the workload.
                let _ = &dir;
            }))
        };
        [
            Workload::new("checkpoint", format!("{name}, save"), "checkpoints", save),
            Workload::new("checkpoint", format!("{name}, load"), "checkpoints", load),
        ]
        .map(Workload::serial)
    };
    ["ppo", "dqn", "vae"].into_iter().flat_map(both).collect()
}
