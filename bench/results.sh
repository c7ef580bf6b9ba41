#!/usr/bin/env bash
# Repeats the tables of docs/results.md on agents: trains each config of a suite with its seeds (runs that are
# finished are kept, others go on), then writes the report, the curves and the picture of the suite.
#
#   bench/results.sh SUITE...          e.g. bench/results.sh cartpole pendulum
#   SEEDS="1 2 3" bench/results.sh minatar-breakout
#   HOTFIRE=target/release/hotfire RUNS=runs/results    the program, and where the runs go
set -euo pipefail
cd "$(dirname "$0")/.."
HOTFIRE=${HOTFIRE:-target/release/hotfire}
RUNS=${RUNS:-runs/results}
SEEDS=${SEEDS:-1 2 3 4 5}

# The configs of a suite.
configs() {
  case $1 in
    cartpole) suffix "$1" dqn ddqn c51 qrdqn rainbow pqn sac ;;
    acrobot) suffix "$1" dqn ddqn c51 qrdqn rainbow pqn ;;
    cartpole-policy-gradients | acrobot-policy-gradients) suffix "${1%-policy-gradients}" ppo a2c reinforce ;;
    mountaincar | lunarlander) suffix "$1" ppo dqn ddqn c51 qrdqn rainbow ;;
    frozenlake) suffix "$1" ppo dqn ;;
    taxi) suffix "$1" ppo dqn ddqn ;;
    pendulum | mountaincar-continuous) suffix "$1" ppo sac td3 ddpg ;;
    lunarlander-continuous) suffix "$1" ppo sac td3 ;;
    rocket | carracing) suffix "$1" ppo ;;
    minatar-breakout | minatar-asterix | minatar-freeway | minatar-spaceinvaders | minatar-seaquest) suffix "$1" ppo pqn ;;
    *) echo "unknown suite $1" >&2 && exit 2 ;;
  esac
}

suffix() {
  local environment=$1 && shift
  printf "%s-$environment\n" "$@"
}

for suite in "$@"; do
  for config in $(configs "$suite"); do
    for seed in $SEEDS; do
      name=$config-s$seed
      run=$RUNS/$suite/$name
      grep -q '"status": *"finished"' "$run/summary.json" 2>/dev/null && continue
      if [ -n "$(ls "$run/checkpoints" 2>/dev/null)" ]; then
        "$HOTFIRE" train --resume "$run" --quiet
      else
        rm -rf "$run"
        "$HOTFIRE" train "configs/$config.toml" --quiet "run.seed=$seed" "run.dir=$RUNS/$suite" "run.name=$name"
      fi
    done
  done
  "$HOTFIRE" report "$RUNS/$suite" --out "$RUNS/$suite-report" --quiet
  mkdir -p docs/curves docs/images
  cp "$RUNS/$suite-report/curves.csv" "docs/curves/$suite.csv"
  cp "$RUNS/$suite-report/curves.png" "docs/images/curves-$suite.png"
  column -s, -t "$RUNS/$suite-report/groups.csv"
done
