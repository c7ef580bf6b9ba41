//! Advantage estimation: elements of `[T, N]` a second.

use std::hint::black_box;

use hotfire_agents::gae::{Trajectory, gae};
use hotfire_core::seed::stream;

use crate::{Prepared, Workload};

/// Steps of a rollout.
const LENGTH: usize = 128;

/// GAE of rollouts of 128 steps of 4, 64 and 1024 environments.
pub fn workloads() -> Vec<Workload> {
    [4, 64, 1024].map(|n| Workload::new("gae", "gae", "steps", move || Ok(advantages(n))).sized(n).serial()).into()
}

/// GAE of 128 steps of `num_envs` environments whose episodes last 20 steps on average.
pub fn advantages(num_envs: usize) -> Prepared {
    let len = LENGTH * num_envs;
    let mut rng = stream(0, "bench", 0);
    let mut floats = || (0..len).map(|_| rng.uniform()).collect::<Vec<f32>>();
    let (rewards, values, next_values, chance) = (floats(), floats(), floats(), floats());
    let terminated: Vec<bool> = chance.iter().map(|x| *x < 0.04).collect();
    let truncated: Vec<bool> = chance.iter().map(|x| *x > 0.99).collect();
    let mut advantages = vec![0.0; len];
    Prepared::new(len, move || {
        let trajectory = Trajectory {
            rewards: &rewards,
            values: &values,
            next_values: &next_values,
            terminated: &terminated,
            truncated: &truncated,
        };
        gae(trajectory, num_envs, 0.99, 0.95, &mut advantages);
        black_box(&advantages);
    })
}
