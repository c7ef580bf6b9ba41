//! Measuring a policy in environments of its own, and filming it.

use hotfire_core::CoreError;
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, Frame, VecEnv};

use crate::agent::env_failed;
use crate::observation::EnvView;
use crate::{EnvConfig, Policy};

/// Environments that an evaluation steps side by side.
const WIDTH: usize = 16;

/// Returns and lengths of `episodes` episodes under the policy, in a fixed order.
///
/// Each environment plays the same number of episodes (the first ones one more), so that short episodes don't crowd
/// out long ones. The environments are seeded from `(seed, "evaluation")`: never the training ones. An episode of 100,000
/// steps is cut off there and counts with its return so far: an early policy that walks into a wall for ever is no reason
/// to end a training.
///
/// # Errors
/// If the environments refuse an action.
pub fn evaluate(
    policy: &mut dyn Policy,
    env: &EnvConfig,
    episodes: u32,
    seed: u64,
) -> Result<Vec<(f64, u32)>, CoreError> {
    let episodes = episodes as usize;
    let width = WIDTH.min(episodes).max(1);
    let mut envs = evaluation_envs(env, width, seed)?;
    let quota = |i: usize| episodes / width + usize::from(i < episodes % width);
    let mut results: Vec<Vec<(f64, u32)>> = (0..width).map(|i| Vec::with_capacity(quota(i))).collect();
    let mut actions = Buffer::new(envs.action_space(), width);
    let mut left = episodes;
    while left > 0 {
        policy.act(EnvView::of(&envs), &mut actions);
        envs.step(actions.as_actions()).map_err(env_failed)?;
        for episode in envs.ended_episodes() {
            if results[episode.env].len() < quota(episode.env) {
                results[episode.env].push((episode.episode_return, episode.length));
                left -= 1;
            }
        }
    }
    Ok(results.concat())
}

/// Plays one episode under the policy and hands each picture to `film`, at most `limit` of them. Returns the return so
/// far; `None` if the environment has no pictures.
///
/// # Errors
/// If the environment refuses an action, or `film` fails.
pub fn record_episode(
    policy: &mut dyn Policy,
    env: &EnvConfig,
    limit: usize,
    seed: u64,
    film: &mut dyn FnMut(Frame) -> Result<(), CoreError>,
) -> Result<Option<f64>, CoreError> {
    let mut envs = evaluation_envs(env, 1, seed)?;
    let mut actions = Buffer::new(envs.action_space(), 1);
    let mut total = 0.0;
    for _ in 0..limit {
        let Some(frame) = envs.env(0).render() else { return Ok(None) };
        film(frame)?;
        policy.act(EnvView::of(&envs), &mut actions);
        envs.step(actions.as_actions()).map_err(env_failed)?;
        total += f64::from(envs.rewards()[0]);
        if let Some(episode) = envs.ended_episodes().next() {
            // Counted in double precision, and below the wrappers that change rewards.
            total = episode.episode_return;
            break;
        }
    }
    Ok(Some(total))
}

fn evaluation_envs(env: &EnvConfig, width: usize, seed: u64) -> Result<VecEnv, CoreError> {
    let mut envs = env.make_for_evaluation(width).map_err(env_failed)?;
    // Half the range leaves room for `seed + i`.
    envs.reset(stream(seed, "evaluation", 0).next_u64() >> 1);
    Ok(envs)
}
