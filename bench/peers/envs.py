"""Environment steps a second of a peer: random actions drawn beforehand, resets included. Used by run.py.

    python envs.py PEER ID NUM_ENVS THREADS SECONDS
"""

import json
import sys
import time

import numpy as np


def sample(space, num_envs, batches=64):
    """[B, N, ...] random actions of one environment's space."""
    rows = np.array([space.sample() for _ in range(batches * num_envs)])
    return rows.reshape(batches, num_envs, *rows.shape[1:])


def gymnasium_steps(env_id, num_envs, threads):
    import gymnasium

    envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(env_id)] * num_envs)
    actions = sample(envs.single_action_space, num_envs)
    envs.reset(seed=0)
    at = 0

    def run():
        nonlocal at
        at = (at + 1) % len(actions)
        envs.step(actions[at])

    return num_envs, run


def envpool_steps(env_id, num_envs, threads):
    import envpool

    envs = envpool.make_gymnasium(env_id, num_envs=num_envs, num_threads=threads, seed=0)
    space = envs.action_space
    actions = sample(space, num_envs)
    if actions.dtype.kind == "i":
        actions = actions.astype(np.int32)
    envs.reset()
    at = 0

    def run():
        nonlocal at
        at = (at + 1) % len(actions)
        envs.step(actions[at])

    return num_envs, run


def gymnax_steps(env_id, num_envs, threads, length=100):
    import gymnax
    import jax
    import jax.numpy as jnp

    env, params = gymnax.make({"MinAtar/Breakout-v1": "Breakout-MinAtar"}.get(env_id, env_id))
    space = env.action_space(params)
    actions = jax.vmap(jax.vmap(space.sample))(jax.random.split(jax.random.key(1), (length, num_envs)))
    observations, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(2), num_envs), params)

    @jax.jit
    def steps(key, state):
        def step(carry, actions):
            key, state, total = carry
            key, now = jax.random.split(key)
            keys = jax.random.split(now, num_envs)
            observations, state, reward, done, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, actions, params)
            # Used, so that the compiler leaves nothing out.
            total = total + reward.sum() + done.sum() + observations.sum()
            return (key, state, total), None

        (key, state, total), _ = jax.lax.scan(step, (key, state, jnp.float32(0)), actions)
        return key, state, total

    key, state, total = steps(jax.random.key(0), state)
    carry = [key, state]

    def run():
        key, state, total = steps(*carry)
        total.block_until_ready()
        carry[:] = key, state

    return num_envs * length, run


def minatar_steps(env_id, num_envs, threads):
    from minatar import Environment

    env = Environment(env_id.split("/")[1].split("-")[0].lower())
    actions = np.random.default_rng(0).choice(env.minimal_action_set(), 4096)
    at = 0

    def run():
        nonlocal at
        at = (at + 1) % len(actions)
        _, done = env.act(actions[at])
        env.state()
        if done:
            env.reset()

    return 1, run


def main():
    peer, env_id, num_envs, threads, seconds = sys.argv[1:]
    units, run = globals()[f"{peer}_steps"](env_id, int(num_envs), int(threads))
    run()
    done, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < float(seconds):
        run()
        done += units
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": done / wall, "cpu": done / cpu}))


if __name__ == "__main__":
    main()
