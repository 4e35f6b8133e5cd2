# Common part of the batch scripts, which source it. Settings come from the environment of sbatch:
#   TCR_PYTHON       Python interpreter                                       .venv/bin/python
#   TCR_CONTAINER    Apptainer image to use instead, built from container.def (none)
#   TCR_SERVER       file with the address that serve_llm.sbatch writes       (none: use llm.base_url)
#   TCR_WAIT         seconds to wait for this file                            3600
#   HF_HUB_OFFLINE   0 if compute nodes have access to the Hugging Face hub   1
#   OMP_NUM_THREADS  threads of one process                                   --cpus-per-task
# sbatch reads SBATCH_ACCOUNT, SBATCH_PARTITION and SBATCH_TIMELIMIT.
# shellcheck shell=bash disable=SC2034  # the sourcing scripts use these variables
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

tcr=("${TCR_PYTHON:-.venv/bin/python}" -m project)
if [ -n "${TCR_CONTAINER:-}" ]; then tcr=(apptainer exec --nv "$TCR_CONTAINER" python3 -m project); fi

# The argument with the server's address, after waiting for the file.
server=()
if [ -n "${TCR_SERVER:-}" ]; then
  for _ in $(seq "${TCR_WAIT:-3600}"); do
    if [ -s "$TCR_SERVER" ]; then break; fi
    sleep 1
  done
  if [ ! -s "$TCR_SERVER" ]; then echo "error: $TCR_SERVER has no address after ${TCR_WAIT:-3600} s; check the job of serve_llm.sbatch" >&2; exit 1; fi
  server=("llm.base_url=$(cat "$TCR_SERVER")")
fi

# Runs a command. If it saves on a stop request (exit code 75), the job is requeued.
run_or_requeue() {
  local code=0
  "$@" || code=$?
  case $code in
    0) ;;
    75)
      echo "job $SLURM_JOB_ID saved its state on a stop request and is requeued"
      scontrol requeue "$SLURM_JOB_ID"
      ;;
    *)
      echo "error: job $SLURM_JOB_ID failed with code $code; its saved state is kept. Run the same sbatch to resume" >&2
      exit "$code"
      ;;
  esac
}
