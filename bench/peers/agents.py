"""PPO, DQN and SAC of Stable-Baselines3 and SBX with rl-baselines3-zoo's settings. Used by run.py.

    python agents.py PEER SETTING speed STEPS            steps a second of learn(), after a first call that compiles
    python agents.py PEER SETTING threshold STEPS SEED   seconds and steps to the threshold, evaluated as hotfire does
"""

import json
import sys
import time

import gymnasium
import torch
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env


def linear(start):
    return lambda left: left * start


SETTINGS = {
    "ppo-cartpole": ("PPO", "CartPole-v1", 8, dict(
        n_steps=32, batch_size=256, n_epochs=20, learning_rate=linear(1e-3), clip_range=linear(0.2), gamma=0.98,
        gae_lambda=0.8, ent_coef=0.0)),
    "ppo-lunarlander": ("PPO", "LunarLander-v3", 16, dict(
        n_steps=1024, batch_size=64, n_epochs=4, gamma=0.999, gae_lambda=0.98, ent_coef=0.01)),
    "dqn-cartpole": ("DQN", "CartPole-v1", 1, dict(
        learning_rate=2.3e-3, batch_size=64, buffer_size=100_000, learning_starts=1000, gamma=0.99,
        target_update_interval=10, train_freq=256, gradient_steps=128, exploration_fraction=0.16,
        exploration_final_eps=0.04, policy_kwargs=dict(net_arch=[256, 256]))),
    "sac-pendulum": ("SAC", "Pendulum-v1", 1, dict(
        learning_rate=1e-3, batch_size=256, learning_starts=100, tau=0.005, gamma=0.99, train_freq=1, gradient_steps=1)),
}


def make(peer, setting, seed):
    algorithm, env_id, num_envs, options = SETTINGS[setting]
    package = __import__({"sb3": "stable_baselines3", "sbx": "sbx"}[peer])
    envs = make_vec_env(env_id, n_envs=num_envs, seed=seed)
    device = {"device": "cpu"} if peer == "sb3" else {}
    return getattr(package, algorithm)("MlpPolicy", envs, seed=seed, verbose=0, **device, **options)


def speed(peer, setting, steps):
    model = make(peer, setting, 0)
    model.learn(max(steps // 10, 2000))  # compiles
    wall, cpu, before = time.perf_counter(), time.process_time(), model.num_timesteps
    model.learn(steps, reset_num_timesteps=False)
    done = model.num_timesteps - before
    return {"wall": done / (time.perf_counter() - wall), "cpu": done / (time.process_time() - cpu)}


def threshold(peer, setting, steps, seed):
    _, env_id, num_envs, _ = SETTINGS[setting]
    limit = gymnasium.spec(env_id).reward_threshold
    model = make(peer, setting, seed)
    stop = StopTrainingOnRewardThreshold(limit, verbose=0)
    evaluate = EvalCallback(
        make_vec_env(env_id, seed=seed + 1000), callback_on_new_best=stop, eval_freq=2000 // num_envs,
        n_eval_episodes=10, verbose=0)
    wall, cpu = time.perf_counter(), time.process_time()
    model.learn(steps, callback=evaluate)
    return {
        "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "steps": model.num_timesteps,
        "reached": bool(evaluate.best_mean_reward >= limit)}


def main():
    peer, setting, what, steps, *rest = sys.argv[1:]
    torch.set_num_threads(int(__import__("os").environ.get("OMP_NUM_THREADS", "1")))
    if what == "speed":
        print(json.dumps(speed(peer, setting, int(steps))))
    else:
        print(json.dumps(threshold(peer, setting, int(steps), int(rest[0]))))


if __name__ == "__main__":
    main()
