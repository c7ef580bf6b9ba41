#!/usr/bin/env bash
# Repeats the tables of docs/results.md on agents: trains each config of a suite with its seeds (runs that are there
# already are kept), then writes the report, the curves and the picture of the suite.
#
#   bench/results.sh SUITE...          e.g. bench/results.sh cartpole pendulum
#   SEEDS="1 2 3" bench/results.sh minatar-breakout
#   HOTFIRE=target/release/hotfire RUNS=runs/results    the program, and where the runs go
set -euo pipefail
cd "$(dirname "$0")/.."
HOTFIRE=${HOTFIRE:-target/release/hotfire}
RUNS=${RUNS:-runs/results}
SEEDS=${SEEDS:-1 2 3 4 5}

configs() {
  case $1 in
    cartpole | acrobot) echo dqn ddqn c51 qrdqn rainbow pqn ;;
    mountaincar) echo ppo dqn ddqn c51 qrdqn rainbow ;;
    lunarlander) echo ppo dqn ddqn c51 qrdqn rainbow ;;
    frozenlake) echo ppo dqn ;;
    taxi) echo ppo dqn ddqn ;;
    pendulum) echo ppo sac td3 ddpg ;;
    mountaincar-continuous) echo ppo sac td3 ddpg ;;
    lunarlander-continuous) echo ppo sac td3 ;;
    rocket | carracing) echo ppo ;;
    minatar-breakout | minatar-asterix | minatar-freeway | minatar-spaceinvaders | minatar-seaquest) echo ppo pqn ;;
    *) echo "unknown suite $1" >&2 && exit 2 ;;
  esac
}

for suite in "$@"; do
  for algorithm in $(configs "$suite"); do
    for seed in $SEEDS; do
      name=$algorithm-$suite-s$seed
      [ -e "$RUNS/$suite/$name/summary.json" ] && continue
      "$HOTFIRE" train "configs/$algorithm-$suite.toml" --quiet "run.seed=$seed" "run.dir=$RUNS/$suite" "run.name=$name"
    done
  done
  "$HOTFIRE" report "$RUNS/$suite" --out "$RUNS/$suite-report" --quiet
  mkdir -p docs/curves docs/images
  cp "$RUNS/$suite-report/curves.csv" "docs/curves/$suite.csv"
  cp "$RUNS/$suite-report/curves.png" "docs/images/curves-$suite.png"
  column -s, -t "$RUNS/$suite-report/groups.csv"
done
