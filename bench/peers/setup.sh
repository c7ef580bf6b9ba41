#!/usr/bin/env bash
# setup.sh [FOLDER]: makes the peers' Python 3.12 environment (default bench/peers/.venv, 6 GB), versions as in
# requirements.txt. That file was resolved from requirements.in by
#   uv pip compile --python-version 3.12 --no-annotate --no-header requirements.in -o requirements.txt
set -euo pipefail
cd "$(dirname "$0")"
venv=${1:-.venv}
python=${PYTHON:-python3.12}
if command -v uv >/dev/null; then
  uv venv -q --python "$python" "$venv"
  VIRTUAL_ENV="$venv" uv pip sync -q requirements.txt
else
  "$python" -m venv "$venv"
  "$venv/bin/pip" install -q -r requirements.txt
fi
"$venv/bin/python" -c 'import envpool, gymnasium, gymnax, jax, sbx, stable_baselines3, torch; print("ready")'
