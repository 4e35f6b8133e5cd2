#!/usr/bin/env bash
# Submit a complete study: serve the language model, prepare the store, train several seeds, evaluate, report.
#
#   SBATCH_ACCOUNT=me SBATCH_PARTITION=gpu SHARDS=8 SEEDS=0-4 GPUS=4 slurm/pipeline.sh \
#     experiment=paper/petfinder data.path=/data/petfinder trainer=ddp method=ours
#
# Prints the ids of the jobs and returns. prepare starts with the server, which stops when prepare has ended; train,
# evaluate and report each wait for the success of the job before. Settings come from the environment:
#   SHARDS      number of prepare jobs                                   4
#   SEEDS       seeds, in the format of sbatch --array                   0-2
#   GPUS        GPUs of one training job; 0 requests no GPU in any job   1
#   TCR_SERVER  file for the address of the server                       outputs/server-<pid>
# and LLM_MODEL, LLM_COMMAND of serve_llm.sbatch and the settings of settings.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export TCR_SERVER=${TCR_SERVER:-outputs/server-$$}

gpus=${GPUS:-1}
one=() all=()
if [ "$gpus" != 0 ]; then one=(--gpus-per-node=1) all=("--gpus-per-node=$gpus"); fi

submit() { # name, dependency, options and script ...
  local id
  id=$(sbatch --parsable --kill-on-invalid-dep=yes ${2:+"--dependency=$2"} "${@:3}")
  echo "$1 $id"
  last=${id%%;*}
}

submit serve "" "${one[@]}" slurm/serve_llm.sbatch
serve=$last
submit prepare "after:$serve" "--array=0-$((${SHARDS:-4} - 1))" slurm/prepare.sbatch "$@"
prepare=$last
submit stop-serving "afterany:$prepare" --job-name=stop-serving --output=%x-%j.out --wrap="scancel $serve"
unset TCR_SERVER # the later jobs read the store only: a missing text is an error
submit train "afterok:$prepare" "--array=${SEEDS:-0-2}" "--ntasks-per-node=$((gpus > 1 ? gpus : 1))" "${all[@]}" \
  slurm/seeds.sbatch "$@" store.engine=false evaluate=false
submit evaluate "afterok:$last" "--array=${SEEDS:-0-2}" "${one[@]}" slurm/evaluate.sbatch "$@" store.engine=false
submit report "afterok:$last" slurm/report.sbatch "$@"
