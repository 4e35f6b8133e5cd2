#!/usr/bin/env bash
# What a login node lacks to submit the jobs of this folder: make cluster-check. Asks, and changes nothing.
#   TCR_OUTPUT   the folder that all nodes share      outputs
#   TCR_PYTHON, TCR_CONTAINER: see settings.sh
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
lacking=0

ok() { printf '  ok       %s\n' "$1"; }
look() { printf '  look     %s\n' "$1"; }
lack() { printf '  missing  %s\n' "$1"; lacking=$((lacking + 1)); }

for tool in sbatch srun scontrol; do
  if command -v $tool >/dev/null; then ok "$tool"; else lack "$tool: this is no login node of a SLURM cluster"; fi
done
if command -v sinfo >/dev/null && partitions=$(sinfo -h -o '%P %G' 2>/dev/null); then
  gpu=$(awk '$2 ~ /gpu/ { print $1 }' <<<"$partitions" | paste -sd' ')
  if [ -n "$gpu" ]; then ok "partitions with GPUs: $gpu"; else lack "a partition with GPUs: sinfo -o '%P %G'"; fi
else
  lack "SLURM's controller: sinfo gets no answer"
fi
if [ -n "${TCR_CONTAINER:-}" ]; then
  if ! command -v apptainer >/dev/null; then lack "apptainer, which TCR_CONTAINER needs"
  elif [ -f "$TCR_CONTAINER" ]; then ok "container $TCR_CONTAINER"
  else lack "$TCR_CONTAINER: apptainer build $TCR_CONTAINER slurm/container.def"; fi
else
  python=${TCR_PYTHON:-.venv/bin/python}
  if ! command -v "$python" >/dev/null; then
    lack "$python: python3 -m venv .venv && .venv/bin/pip install -e '.[openai]', with Python 3.11 or newer; or TCR_CONTAINER"
  elif "$python" -c 'import sys, torch, lightning, peft, project; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    ok "$python with the project"
  else
    lack "the project in $python, at least 3.11: $python -m pip install -e '.[openai]'"
  fi
fi
shared=${TCR_OUTPUT:-outputs}
if mkdir -p "$shared" 2>/dev/null && [ -w "$shared" ]; then
  case $(stat -f -c %T "$shared") in
    tmpfs | overlayfs | ext2/ext3 | xfs | btrfs) look "$shared is on a disk of this node; the compute nodes must see it, too" ;;
    *) ok "$shared is writable, on $(stat -f -c %T "$shared")" ;;
  esac
  free=$(df --output=avail -BG "$shared" | tail -1 | tr -dc 0-9)
  if [ "$free" -lt 20 ]; then look "$shared has $free GB free"; fi
else
  lack "$shared cannot be written; give output= and store.path= on a shared disk"
fi
cache=${HF_HUB_CACHE:-${HF_HOME:-$HOME/.cache/huggingface}/hub}
if compgen -G "$cache/models--*" >/dev/null; then ok "models of the hub in $cache"
else lack "models in $cache: fetch encoder and language model where there is a network: hf download <id>"; fi
if [ -n "${WANDB_API_KEY:-}" ] || grep -qs 'api.wandb.ai' ~/.netrc; then ok "a W&B login; wandb.mode=online where compute nodes reach it"
else look "no W&B login: runs are kept offline; wandb login, then wandb sync outputs/<run>/wandb/offline-run-*"; fi

if [ $lacking = 0 ]; then echo "nothing is missing"; else echo "$lacking missing" >&2; exit 1; fi
