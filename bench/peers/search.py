"""Hotfire's search methods beside Optuna's samplers on standard functions.

    pip install optuna==5.0.0
    python bench/peers/search.py [--seeds 30] [--trials 100]

Our values are printed by a test of the binary, which runs the sweep's own search. Printed is the median over seeds of
the best loss after so many trials, as a Markdown table, and how often ours is better than Optuna's at the end (ties half).
"""

import argparse
import collections
import json
import math
import os
import statistics
import subprocess

import optuna

HEIGHT = [1.0, 1.2, 3.0, 3.2]
STEEP = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
PLACE = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def sphere(trial):
    return sum(trial.suggest_float(f"x{i}", -5, 5) ** 2 for i in range(5))


def branin(trial):
    x, y = trial.suggest_float("x0", -5, 10), trial.suggest_float("x1", 0, 15)
    curve = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann(trial):
    x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(6)]
    distance = [sum(a * (v - p) ** 2 for a, v, p in zip(STEEP[i], x, PLACE[i])) for i in range(4)]
    return -sum(height * math.exp(-d) for height, d in zip(HEIGHT, distance))


def mixed(trial):
    penalty = {"tanh": 0.0, "relu": 0.3, "gelu": 1.0}[trial.suggest_categorical("activation", ["tanh", "relu", "gelu"])]
    layers = trial.suggest_int("layers", 1, 8)
    rate = math.log10(trial.suggest_float("learning_rate", 1e-6, 1.0, log=True) / 3e-3)
    momentum = trial.suggest_float("momentum", 0, 1)
    return rate**2 + penalty + 0.1 * (layers - 3) ** 2 + 4 * (momentum - 0.9) ** 2


PROBLEMS = {"sphere (5)": sphere, "Branin (2)": branin, "Hartmann (6)": hartmann, "mixed (4)": mixed}


def ours(seeds, trials):
    command = ["cargo", "test", "--workspace", "--bin", "hotfire", "--", "--nocapture", "the_estimator_beats_random"]
    environment = {**os.environ, "HOTFIRE_SEARCH_SEEDS": str(seeds), "HOTFIRE_SEARCH_TRIALS": str(trials)}
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    curves = collections.defaultdict(list)
    for line in output.splitlines():
        if "{" in line:
            record = json.loads(line[line.index("{") :])
            curves[record["problem"], record["method"]].append(record["best"])
    return curves


def peer(objective, sampler, trials):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=trials)
    best, curve = math.inf, []
    for trial in study.trials:
        best = min(best, trial.value)
        curve.append(best)
    return curve


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = ours(arguments.seeds, arguments.trials)
    samplers = {
        "Optuna random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
        "Optuna TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
        "Optuna TPE, univariate": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=False),
    }
    for problem, objective in PROBLEMS.items():
        for name, sampler in samplers.items():
            for seed in range(arguments.seeds):
                curves[problem, name].append(peer(objective, sampler(seed), arguments.trials))
    marks = [n for n in (25, 50, 100, 200) if n <= arguments.trials]
    head = " | ".join(f"after {n}" for n in marks)
    print(f"Optuna {optuna.__version__}, {arguments.seeds} seeds\n")
    print(f"| function (keys) | search | {head} | better than Optuna's TPE |")
    print("| --- | --- | " + "---: | " * (len(marks) + 1))
    for problem in PROBLEMS:
        reference = [curve[-1] for curve in curves[problem, "Optuna TPE"]]
        for name in ["random", "tpe", *samplers]:
            found = curves[problem, name]
            medians = " | ".join(f"{statistics.median(curve[n - 1] for curve in found):.4g}" for n in marks)
            last = [curve[-1] for curve in found]
            wins = statistics.mean((a < b) + (a == b) / 2 for a in last for b in reference)
            print(f"| {problem} | {name} | {medians} | {'' if name == 'Optuna TPE' else f'{wins:.0%}'} |")


if __name__ == "__main__":
    main()
