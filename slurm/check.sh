#!/usr/bin/env bash
# Checks on a login node whether the jobs of this folder can run: make cluster-check. Exits 1 if something is missing.
# It creates the folder TCR_OUTPUT and changes nothing else. Settings come from the environment:
#   TCR_OUTPUT                 folder of runs and stores, on a disk that all nodes share    outputs
#   TCR_PYTHON, TCR_CONTAINER  see settings.sh
#   HF_HUB_CACHE, HF_HOME      as the Hugging Face hub reads them
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
missing=0

ok() { printf '  ok       %s\n' "$1"; }
note() { printf '  note     %s\n' "$1"; }
lack() { printf '  missing  %s\n' "$1"; missing=$((missing + 1)); }

for tool in sbatch srun scontrol; do
  if command -v $tool >/dev/null; then ok "$tool"; else lack "$tool: run this on a login node of a SLURM cluster"; fi
done
if command -v sinfo >/dev/null && partitions=$(sinfo -h -o '%P %G' 2>/dev/null); then
  gpu=$(awk '$2 ~ /gpu/ { print $1 }' <<<"$partitions" | paste -sd' ')
  if [ -n "$gpu" ]; then ok "partitions with GPUs: $gpu"; else lack "a partition with GPUs: sinfo -o '%P %G' lists none"; fi
else
  lack "SLURM's controller: sinfo fails"
fi
if [ -n "${TCR_CONTAINER:-}" ]; then
  if ! command -v apptainer >/dev/null; then lack "apptainer, required by TCR_CONTAINER"
  elif [ -f "$TCR_CONTAINER" ]; then ok "container $TCR_CONTAINER"
  else lack "$TCR_CONTAINER: apptainer build $TCR_CONTAINER slurm/container.def"; fi
else
  python=${TCR_PYTHON:-.venv/bin/python}
  if ! command -v "$python" >/dev/null; then
    lack "$python: python3 -m venv .venv && .venv/bin/pip install -e '.[openai]', with Python 3.11 or newer; or set TCR_CONTAINER"
  elif "$python" -c 'import sys, torch, lightning, peft, project; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    ok "$python with the project"
  else
    lack "the project in $python, or Python 3.11: $python -m pip install -e '.[openai]'"
  fi
fi
shared=${TCR_OUTPUT:-outputs}
if mkdir -p "$shared" 2>/dev/null && [ -w "$shared" ]; then
  case $(stat -f -c %T "$shared") in
    tmpfs | overlayfs | ext2/ext3 | xfs | btrfs) note "$shared is on a local disk; the compute nodes must see it as well" ;;
    *) ok "$shared is writable, on $(stat -f -c %T "$shared")" ;;
  esac
  free=$(df --output=avail -BG "$shared" | tail -1 | tr -dc 0-9)
  if [ "$free" -lt 20 ]; then note "$shared has only $free GB free"; fi
else
  lack "write access to $shared; set TCR_OUTPUT, output= and store.path= to a folder on a shared disk"
fi
cache=${HF_HUB_CACHE:-${HF_HOME:-$HOME/.cache/huggingface}/hub}
if compgen -G "$cache/models--*" >/dev/null; then ok "hub models in $cache"
else lack "models in $cache: download encoder and language model on a node with network access: hf download <id>"; fi
if [ -n "${WANDB_API_KEY:-}" ] || grep -qs 'api.wandb.ai' ~/.netrc; then ok "a W&B login; set wandb.mode=online if compute nodes reach W&B"
else note "no W&B login: runs stay offline; to upload them: wandb login && wandb sync <run folder>/wandb/offline-run-*"; fi

if [ $missing = 0 ]; then echo "nothing is missing"; else echo "$missing missing" >&2; exit 1; fi
