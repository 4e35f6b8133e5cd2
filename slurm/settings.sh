# What the batch scripts share, read by each of them. Settings come from the environment of sbatch:
#   TCR_PYTHON     the Python to run                                        .venv/bin/python
#   TCR_CONTAINER  an Apptainer image to run in, made by container.def      none
#   TCR_SERVER     a file in which serve_llm.sbatch writes its address      none: no server is waited for
#   TCR_WAIT       how many seconds to wait for it                          3600
#   HF_HUB_OFFLINE 0 where compute nodes reach the hub                      1
# sbatch itself reads SBATCH_ACCOUNT, SBATCH_PARTITION and SBATCH_TIMELIMIT.
# shellcheck shell=bash disable=SC2034  # the scripts that read this use what it sets
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

tcr=("${TCR_PYTHON:-.venv/bin/python}" -m project)
if [ -n "${TCR_CONTAINER:-}" ]; then tcr=(apptainer exec --nv "$TCR_CONTAINER" python3 -m project); fi

# The arguments that name the server, once it has written its address.
server=()
if [ -n "${TCR_SERVER:-}" ]; then
  for _ in $(seq "${TCR_WAIT:-3600}"); do
    if [ -s "$TCR_SERVER" ]; then break; fi
    sleep 1
  done
  if [ ! -s "$TCR_SERVER" ]; then echo "error: no server has written its address to $TCR_SERVER" >&2; exit 1; fi
  server=("llm.base_url=$(cat "$TCR_SERVER")")
fi

# Runs a command. Where it was asked to stop and has saved (exit code 75), the job is queued again.
run_or_requeue() {
  local code=0
  "$@" || code=$?
  case $code in
    0) ;;
    75)
      echo "job $SLURM_JOB_ID was asked to stop, has saved, and is queued again"
      scontrol requeue "$SLURM_JOB_ID"
      ;;
    *)
      echo "error: job $SLURM_JOB_ID failed with code $code; what was saved is kept, and the same sbatch goes on" >&2
      exit "$code"
      ;;
  esac
}
