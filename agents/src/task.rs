//! An agent as a task of the run shell: evaluation and pictures are the same for every algorithm.

use std::path::{Path, PathBuf};

use burn::prelude::Device;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::media::GifWriter;
use hotfire_core::metrics::Metrics;
use hotfire_core::summary::EvalStats;
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_envs::Frame;

use crate::registry::{Setting, algorithm};
use crate::{Agent, EnvConfig, evaluate, record_episode};

/// Longest film of an agent, in environment steps.
const FILM_STEPS: usize = 1000;

/// An agent, its environments and its seed.
pub struct AgentTask {
    name: String,
    agent: Box<dyn Agent>,
    env: EnvConfig,
    seed: u64,
}

impl AgentTask {
    /// Reads `[env]` and `[agent]` and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for a mistake in either section.
    pub fn from_config(
        document: &mut ConfigDocument,
        seed: u64,
        device: &Device,
        total_steps: u64,
    ) -> Result<Self, ConfigError> {
        let env = EnvConfig::read(document)?;
        let spec = algorithm(document)?;
        let agent = (spec.make)(document, &Setting { env: &env, seed, device, total_steps })?;
        Ok(Self { name: format!("{} {}", spec.name, env.spec.id), agent, env, seed })
    }

    /// Algorithm and environment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The agent.
    pub fn agent(&self) -> &dyn Agent {
        self.agent.as_ref()
    }

    /// What its environments are made from.
    pub fn env_config(&self) -> &EnvConfig {
        &self.env
    }

    /// Return statistics of the greedy policy over episodes that `seed` fixes.
    ///
    /// # Errors
    /// If the environments refuse an action.
    pub fn evaluate_with_seed(&self, episodes: u32, seed: u64) -> Result<Evaluation, CoreError> {
        let results = evaluate(self.agent.policy().as_mut(), &self.env, episodes, seed)?;
        let returns: Vec<f64> = results.iter().map(|(episode_return, _)| *episode_return).collect();
        let mut metrics = Metrics::new();
        let total: u64 = results.iter().map(|(_, length)| u64::from(*length)).sum();
        metrics.push("episode_length", total as f64 / results.len().max(1) as f64);
        Ok(Evaluation { eval: EvalStats::from_returns(&returns), metrics })
    }

    /// Writes the policy for use outside below `dir` and returns the files' paths.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn export(&self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let envs = self.env.make(1).map_err(|error| CoreError::Failed(error.to_string()))?;
        let context = [
            ("task", self.name.clone().into()),
            ("steps", self.agent.step().into()),
            ("observation_space", envs.observation_space().to_string().into()),
            ("action_space", envs.action_space().to_string().into()),
        ];
        self.agent.export().write(dir, &context)
    }

    /// Films one greedy episode that `seed` fixes; `None` if the environment has no pictures. Returns its return.
    ///
    /// # Errors
    /// If the environment refuses an action or the file can't be written.
    pub fn film(&self, path: &Path, seed: u64) -> Result<Option<f64>, CoreError> {
        let mut gif: Option<GifWriter> = None;
        let write_error = |error| CoreError::io(path, "write")(error);
        let mut push = |frame: Frame| {
            if gif.is_none() {
                let started = GifWriter::new(path, frame.width, frame.height, self.env.spec.render_fps);
                gif = Some(started.map_err(write_error)?);
            }
            gif.as_mut().map_or(Ok(()), |gif| gif.push(&frame.rgb)).map_err(write_error)
        };
        let played = self.watch(seed, &mut push)?;
        if let Some(gif) = gif {
            gif.finish().map_err(write_error)?;
        }
        Ok(played)
    }

    /// Plays one episode, at most the length of a film, and hands each picture to `film`. Returns the return so far;
    /// `None` if the environment has no pictures.
    ///
    /// # Errors
    /// If the environment refuses an action, or `film` fails.
    pub fn watch(
        &self,
        seed: u64,
        film: &mut dyn FnMut(Frame) -> Result<(), CoreError>,
    ) -> Result<Option<f64>, CoreError> {
        record_episode(self.agent.policy().as_mut(), &self.env, FILM_STEPS, seed, film)
    }
}

impl Task for AgentTask {
    fn step(&self) -> u64 {
        self.agent.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        self.agent.iterate()
    }

    fn evaluate(&mut self, episodes: u32) -> Result<Evaluation, CoreError> {
        self.evaluate_with_seed(episodes, self.seed)
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let path = dir.join("agent.gif");
        Ok(self.film(&path, self.seed)?.map(|_| path).into_iter().collect())
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.agent.save(to)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        self.agent.load(from)
    }

    fn headline(&self) -> Headline {
        Headline { metric: "episode_return", label: "episode return".into(), threshold: self.env.spec.reward_threshold }
    }
}
