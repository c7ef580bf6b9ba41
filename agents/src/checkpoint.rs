//! What checkpoints of all algorithms do alike.

use burn::module::Module;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_envs::{StateReader, StateWriter, VecEnv};
use hotfire_nn::Adam;

/// Writes a module and the optimizer that steps it as `NAME.safetensors` and `NAME-optimizer.safetensors`; returns the
/// optimizer's step count, to be kept with the agent's numbers.
pub(crate) fn save_learned<M: Module>(
    to: &mut CheckpointWriter,
    name: &str,
    module: &M,
    optimizer: &Adam,
) -> Result<u64, CoreError> {
    to.module(&format!("{name}.safetensors"), module)?;
    optimizer.save(to, &format!("{name}-optimizer.safetensors"), module)
}

/// Restores the optimizer and returns the module that [`save_learned`] wrote; `module` has its shape.
pub(crate) fn load_learned<M: Module>(
    from: &CheckpointReader,
    name: &str,
    module: &M,
    optimizer: &mut Adam,
    steps: u64,
) -> Result<M, CoreError> {
    let module = from.module(&format!("{name}.safetensors"), module.clone())?;
    optimizer.restore(from, &format!("{name}-optimizer.safetensors"), &module, steps)?;
    Ok(module)
}

/// Writes the state of the environments.
pub(crate) fn save_envs(to: &mut CheckpointWriter, envs: &VecEnv) -> Result<(), CoreError> {
    let mut state = StateWriter::default();
    envs.save_state(&mut state);
    to.bytes("environments.bin", &state.into_bytes())
}

/// Restores what [`save_envs`] wrote.
pub(crate) fn load_envs(from: &CheckpointReader, envs: &mut VecEnv) -> Result<(), CoreError> {
    let name = "environments.bin";
    envs.load_state(&mut StateReader::new(&from.bytes(name)?)).map_err(|error| misfit(from, name, error.to_string()))
}

/// A part of a checkpoint that does not fit the agent.
pub(crate) fn misfit(from: &CheckpointReader, name: &str, problem: String) -> CoreError {
    CoreError::Checkpoint { path: from.path().join(name), problem }
}
