//! Generalised advantage estimation, Schulman et al. 2016, <https://arxiv.org/abs/1506.02438>, equations 11-16.

/// One rollout as the estimator sees it; all slices are `[T, N]`, time-major.
#[derive(Clone, Copy, Debug)]
pub struct Trajectory<'a> {
    /// Reward of each step.
    pub rewards: &'a [f32],
    /// Value estimate of the state each step started from.
    pub values: &'a [f32],
    /// Value estimate of the state each step led to, before any reset: of the final observation where the episode was
    /// truncated. Where it terminated the estimate is not used.
    pub next_values: &'a [f32],
    /// Steps that reached a terminal state: no value follows them.
    pub terminated: &'a [bool],
    /// Steps that were cut off: their successor's value counts, but the next row is another episode's.
    pub truncated: &'a [bool],
}

/// Writes the advantages `[T, N]` of `num_envs` environments.
///
/// `delta_t = r_t + gamma V(s_{t+1}) - V(s_t)`, `A_t = delta_t + gamma lambda A_{t+1}`; termination drops the value
/// that follows, and both ends of an episode drop the advantage that follows.
pub fn gae(trajectory: Trajectory<'_>, num_envs: usize, gamma: f64, lambda: f64, advantages: &mut [f32]) {
    let Trajectory { rewards, values, next_values, terminated, truncated } = trajectory;
    let (gamma, decay) = (gamma as f32, (gamma * lambda) as f32);
    for t in (0..rewards.len() / num_envs).rev() {
        for n in 0..num_envs {
            let i = t * num_envs + n;
            let bootstrap = if terminated[i] { 0.0 } else { gamma * next_values[i] };
            let delta = rewards[i] + bootstrap - values[i];
            let ended = terminated[i] || truncated[i];
            let later = advantages.get(i + num_envs).filter(|_| !ended).copied().unwrap_or(0.0);
            advantages[i] = delta + decay * later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two environments, three steps; numbers worked out by hand with gamma 0.5 and lambda 0.5.
    #[test]
    fn matches_hand_computed_values() {
        let trajectory = Trajectory {
            rewards: &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
            values: &[0.5, 0.5, 1.0, 1.0, 2.0, 2.0],
            next_values: &[1.0, 1.0, 8.0, 8.0, 4.0, 4.0],
            // The first environment terminates at its second step, the second is truncated there.
            terminated: &[false, false, true, false, false, false],
            truncated: &[false, false, false, true, false, false],
        };
        let mut advantages = [0.0; 6];
        gae(trajectory, 2, 0.5, 0.5, &mut advantages);
        // t = 2: 3 + 0.5 * 4 - 2 = 3, for both.
        // t = 1: terminated 2 - 1 = 1; truncated 2 + 0.5 * 8 - 1 = 5; nothing carries over from t = 2.
        // t = 0: 1 + 0.5 * 1 - 0.5 = 1, plus 0.25 times the advantage of t = 1.
        assert_eq!(advantages, [1.25, 2.25, 1.0, 5.0, 3.0, 3.0]);
    }

    /// With lambda 1 and exact values of zero, advantages are the discounted returns.
    #[test]
    fn lambda_one_gives_discounted_returns() {
        let trajectory = Trajectory {
            rewards: &[1.0, 2.0, 4.0],
            values: &[0.0; 3],
            next_values: &[0.0; 3],
            terminated: &[false, false, true],
            truncated: &[false; 3],
        };
        let mut advantages = [0.0; 3];
        gae(trajectory, 1, 0.5, 1.0, &mut advantages);
        assert_eq!(advantages, [3.0, 4.0, 4.0]);
    }
}
