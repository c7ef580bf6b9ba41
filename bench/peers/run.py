"""Hotfire and its Python peers in one run, in turn, on the same processors: results.json and a table in Markdown.

    bench/peers/setup.sh                                   # once
    bench/peers/.venv/bin/python bench/peers/run.py --hotfire target/release/hotfire

Each measurement is a process of its own, bound to as many processors as it has threads. Rounds go through all sides of
a case before the next case, in changing order. --clock cpu counts processor time instead of wall time, for a machine
that others use. --only env|agents|threshold|models and --case NAME choose, --threads 1 2 sets the numbers of threads,
--rust-peers PATH adds the program of bench/peers-rust. Results of cases that are not run are kept.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ["gymnasium", "envpool", "stable-baselines3", "sbx-rl", "jax", "gymnax", "torch", "minatar"]

# The environment, how many are stepped at once, and the peers that have it.
ENVS = [
    ("CartPole-v1", 1024, ["gymnasium", "envpool", "gymnax"]),
    ("Acrobot-v1", 1024, ["gymnasium", "envpool", "gymnax"]),
    ("MountainCar-v0", 1024, ["gymnasium", "envpool", "gymnax"]),
    ("Pendulum-v1", 1024, ["gymnasium", "envpool", "gymnax"]),
    ("FrozenLake-v1", 1024, ["gymnasium", "envpool"]),
    ("Taxi-v4", 1024, ["gymnasium", "envpool"]),
    ("CliffWalking-v1", 1024, ["gymnasium", "envpool"]),
    ("Blackjack-v1", 1024, ["gymnasium", "envpool"]),
    ("MinAtar/Breakout-v1", 1024, ["minatar", "gymnax"]),
    ("LunarLander-v3", 64, ["gymnasium", "envpool"]),
    ("BipedalWalker-v3", 64, ["gymnasium", "envpool"]),
    ("CarRacing-v3", 8, ["gymnasium", "envpool"]),
]
# The config, the peers, and how many steps hotfire and the peers are timed over.
AGENTS = [
    ("ppo-cartpole", ["sb3", "sbx"], 1_000_000, 20_000),
    ("ppo-lunarlander", ["sb3", "sbx"], 262_144, 16_384),
    ("dqn-cartpole", ["sb3", "sbx"], 30_000, 6_000),
    ("sac-pendulum", ["sb3", "sbx"], 4_000, 1_500),
]
THRESHOLDS = [("ppo-cartpole", ["sb3", "sbx"], 100_000), ("dqn-cartpole", ["sb3", "sbx"], 50_000)]
# The peer's model, the config with overrides, units a step, and how many steps both sides are timed over.
MODELS = [
    ("autoencoder", "ae-mnist", ["train.epochs=0"], 128, 300),
    ("vae", "vae-mnist", ["train.epochs=0"], 128, 60),
    ("unet", "diffusion-mnist", ["model.base_channels=32"], 64, 12),
    ("gpt", "gpt-shakespeare", [], 768, 100),
]


def command(args, threads, **options):
    """Starts a process on the first `threads` processors that this one may use."""
    processors = sorted(os.sched_getaffinity(0))[:threads]
    names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    environment = {**os.environ, **{name: str(threads) for name in names}, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    bind = lambda: os.sched_setaffinity(0, processors)
    return subprocess.Popen([str(arg) for arg in args], preexec_fn=bind, env=environment, cwd=ROOT, **options)


def answer(args, threads):
    """The JSON that a process prints last."""
    process = command(args, threads, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: {errors.strip().splitlines()[-1:]}")
    return json.loads(out.strip().splitlines()[-1])


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def training(args, config, overrides, first, last, threads, units=1):
    """Units a second of `hotfire train` between its records at two steps; the process is ended then."""
    with tempfile.TemporaryDirectory() as dir:
        settings = [f"run.dir={dir}", "run.name=run", f"run.threads={threads}", "train.eval_interval=0"]
        settings += [f"train.steps={2 * last}", "train.checkpoint_interval=0", f"train.log_interval={max(first // 2, 1)}"]
        train = [args.hotfire, "train", f"configs/{config}.toml", "--quiet", *settings, *overrides]
        process = command(train, threads, stderr=subprocess.PIPE)
        metrics, seen, marks = Path(dir) / "run/metrics.jsonl", 0, []
        try:
            while len(marks) < 2:
                if process.poll() is not None:
                    raise RuntimeError(f"hotfire train {config}: {process.stderr.read().decode().strip()}")
                time.sleep(0.02)
                text = metrics.read_text() if metrics.exists() else ""
                complete = text[: text.rfind("\n") + 1].splitlines()
                for line in complete[seen:]:
                    record = json.loads(line)
                    if record["step"] >= [first, last][len(marks)]:
                        marks.append((record["step"], record["time"], processor_seconds(process.pid)))
                        if len(marks) == 2:
                            break
                seen = len(complete)
        finally:
            process.kill()
            process.wait()
    (step_1, wall_1, cpu_1), (step_2, wall_2, cpu_2) = marks
    done = units * (step_2 - step_1)
    return {"wall": done / (wall_2 - wall_1), "cpu": done / max(cpu_2 - cpu_1, 1e-9)}


def hotfire_threshold(args, config, steps, seed, threads):
    with tempfile.TemporaryDirectory() as dir:
        settings = [f"run.dir={dir}", "run.name=run", f"run.seed={seed}", f"run.threads={threads}", f"train.steps={steps}"]
        settings += ["train.eval_interval=2000", "train.eval_episodes=10", "train.final_eval_episodes=1"]
        settings += ["train.stop_at_threshold=true", "train.checkpoint_interval=0"]
        start = time.perf_counter()
        process = command([args.hotfire, "train", f"configs/{config}.toml", "--quiet", *settings], threads)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"hotfire train {config} ended with status {status}")
        wall = time.perf_counter() - start
        taken = json.loads((Path(dir) / "run/summary.json").read_text())["steps"]
        return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "steps": taken, "reached": taken < steps}


def hotfire_envs(args, group, env_id, num_envs, threads):
    bench = [args.hotfire, "bench", "--round", "--rounds", 1, "--sample-ms", int(1000 * args.seconds)]
    bench += ["--threads", threads, "--num-envs", num_envs, f"{group}/{env_id}/{num_envs}"]
    bench += ["--cpu-time"] if args.clock == "cpu" else []
    process = command(bench, threads, stdout=subprocess.PIPE, text=True)
    results = json.loads(process.communicate()[0])["results"]
    return {args.clock: results[0]["rates"][0]} if results else None


def cases(args):
    """(name, unit, threads, {side: function of the round that measures once})."""
    python = sys.executable
    for env_id, num_envs, peers in ENVS:
        for threads in args.threads:
            sides = {"hotfire": lambda _, e=env_id, n=num_envs, t=threads: hotfire_envs(args, "vec_env", e, n, t)}
            if threads == 1:
                sides["hotfire batch"] = lambda _, e=env_id, n=num_envs: hotfire_envs(args, "batch", e, n, 1)
                if args.rust_peers:
                    rust = [args.rust_peers, env_id, num_envs, args.seconds]
                    for peer in answer([args.rust_peers, env_id], 1):
                        sides[peer] = lambda _, p=peer, r=rust: answer([*r, p], 1)
            for peer in peers:
                if threads > 1 and peer in ("gymnasium", "minatar"):
                    continue  # They step on one thread.
                step = [python, HERE / "envs.py", peer, env_id, 1 if peer == "minatar" else num_envs, threads, args.seconds]
                sides[peer] = lambda _, s=step, t=threads: answer(s, t)
            yield "env", env_id, "steps/s", threads, sides
    for config, peers, steps, peer_steps in AGENTS:
        for threads in args.threads:
            sides = {
                "hotfire": lambda _, c=config, s=steps, t=threads: training(args, c, [], s // 5, s, t)
            }
            for peer in peers:
                learn = [python, HERE / "agents.py", peer, config, "speed", peer_steps]
                sides[peer] = lambda _, l=learn, t=threads: answer(l, t)
            yield "agents", config, "env steps/s", threads, sides
    for config, peers, steps in THRESHOLDS:
        sides = {"hotfire": lambda r, c=config, s=steps: hotfire_threshold(args, c, s, r + 1, args.threads[0])}
        for peer in peers:
            learn = [python, HERE / "agents.py", peer, config, "threshold", steps]
            sides[peer] = lambda r, l=learn: answer([*l, r + 1], args.threads[0])
        yield "threshold", config, "seconds", args.threads[0], sides
    for name, config, overrides, units, steps in MODELS:
        for threads in args.threads:
            sides = {
                "hotfire": lambda _, c=config, o=overrides, s=steps, u=units, t=threads: training(args, c, o, s // 4, s, t, u),
                "torch": lambda _, n=name, s=steps, t=threads: answer([python, HERE / "models.py", n, s], t),
            }
            yield "models", name, "tokens/s" if name == "gpt" else "pictures/s", threads, sides


def measure(args, kind, name, unit, threads, sides):
    found = {side: [] for side in sides}
    for round in range(args.rounds):
        order = list(sides) if round % 2 == 0 else list(reversed(sides))
        for side in order:
            if found[side] is None:
                continue
            try:
                value = sides[side](round)
            except (RuntimeError, json.JSONDecodeError) as error:
                print(f"  {side} failed: {error}", file=sys.stderr)
                value = None
            if value is None:
                found[side] = None
            else:
                found[side].append(value)
    results = []
    for side, values in found.items():
        if values:
            numbers = [value[args.clock] for value in values]
            entry = {"kind": kind, "case": name, "threads": threads, "side": side, "unit": unit, "clock": args.clock}
            entry |= {"median": statistics.median(numbers), "low": min(numbers), "high": max(numbers), "values": numbers}
            for key in ("steps", "reached"):
                if key in values[0]:
                    entry[key] = [value[key] for value in values]
            results.append(entry)
            print(f"  {side:15} {entry['median']:>16,.1f} ({entry['low']:,.1f} to {entry['high']:,.1f})", flush=True)
    return results


def short(value):
    for scale, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:.3g}{prefix}" if value < 999.5 * scale else f"{value / scale:.0f}{prefix}"
    return f"{value:.3g}"


def markdown(results):
    """A table a kind: a row a case, a column a side, and how hotfire's best compares with the best peer."""
    lines = []
    titles = {"env": "Environment steps", "agents": "Training", "threshold": "Time to the threshold", "models": "Training of models"}
    for kind, title in titles.items():
        rows = {}
        for entry in (entry for entry in results if entry["kind"] == kind):
            rows.setdefault((entry["case"], entry["threads"], entry["unit"], entry["clock"]), {})[entry["side"]] = entry
        if not rows:
            continue
        sides = list(dict.fromkeys(side for row in rows.values() for side in row))
        sides.sort(key=lambda side: not side.startswith("hotfire"))
        lines += ["", f"{title}, median (lowest to highest):", "", f"| | threads | {' | '.join(sides)} | ratio to the best peer |"]
        lines += [f"| --- | ---: |{' ---: |' * (len(sides) + 1)}"]
        for (case, threads, unit, clock), row in rows.items():
            cells = []
            for side in sides:
                entry = row.get(side)
                cell = f"{short(entry['median'])} ({short(entry['low'])} to {short(entry['high'])})" if entry else "–"
                if entry and not all(entry.get("reached", [True])):
                    cell += f", {entry['reached'].count(False)} of {len(entry['reached'])} not reached"
                cells.append(cell)
            ours = [entry["median"] for side, entry in row.items() if side.startswith("hotfire")]
            theirs = [entry["median"] for side, entry in row.items() if not side.startswith("hotfire")]
            best = min if kind == "threshold" else max
            ratio = "–"
            if ours and theirs:
                ratio = best(theirs) / best(ours) if kind == "threshold" else best(ours) / best(theirs)
                ratio = f"{ratio:.3g}"
            name = f"{case}, {unit}" + (" of processor time" if clock == "cpu" else "")
            lines.append(f"| {name} | {threads} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines[1:]) + "\n"


def machine():
    model = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    versions = {package: version(package) for package in PACKAGES}
    return {"cpu": model[0], "processors": len(model), "python": platform.python_version(), **versions}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hotfire", required=True, type=Path)
    parser.add_argument("--rust-peers", type=Path)
    parser.add_argument("--only", choices=["env", "agents", "threshold", "models"])
    parser.add_argument("--case")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a sample of environment steps")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    for path in [args.hotfire, *([args.rust_peers] if args.rust_peers else [])]:
        if not path.is_file():
            parser.error(f"{path}: expected a program, found none")
    args.hotfire = args.hotfire.resolve()
    args.rust_peers = args.rust_peers and args.rust_peers.resolve()
    record = json.loads(args.out.read_text()) if args.out.exists() else {"results": []}
    record["machine"] = machine()
    for kind, name, unit, threads, sides in cases(args):
        if args.only not in (None, kind) or args.case not in (None, name):
            continue
        load = os.getloadavg()[0]
        print(f"{name}, {threads} thread(s), {unit}, load {load:.1f}", flush=True)
        new = measure(args, kind, name, unit, threads, sides)
        for entry in new:
            entry["load"] = load
        same = lambda e: (e["kind"], e["case"], e["threads"]) == (kind, name, threads)
        record["results"] = [entry for entry in record["results"] if not same(entry)] + new
        args.out.write_text(json.dumps(record, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(markdown(record["results"]))
    print("\n" + markdown(record["results"]))


if __name__ == "__main__":
    main()
