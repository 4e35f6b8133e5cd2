#!/usr/bin/env bash
# A whole study: serve the language model, prepare the store, train some seeds, evaluate them, write the report.
#
#   SBATCH_ACCOUNT=me SBATCH_PARTITION=gpu SHARDS=8 SEEDS=0-4 GPUS=4 slurm/pipeline.sh \
#     experiment=paper/petfinder data.path=/data/petfinder trainer=ddp method=ours
#
# Prints the jobs' ids and returns. Each job waits for those before it; the server ends when the store is prepared.
#   SHARDS  jobs that prepare           4        SEEDS  seeds, as sbatch --array takes them    0-2
#   GPUS    GPUs of a training job      1        0 asks for none, anywhere
set -euo pipefail
cd "$(dirname "$0")/.."
export TCR_SERVER=${TCR_SERVER:-outputs/server-$$}

gpus=${GPUS:-1}
one=() all=()
if [ "$gpus" != 0 ]; then one=(--gpus-per-node=1) all=("--gpus-per-node=$gpus"); fi

submit() { # name, job that it waits for, options and script ...
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
unset TCR_SERVER # all texts are there: from here on a missing one is an error
submit train "afterok:$prepare" "--array=${SEEDS:-0-2}" "--ntasks-per-node=$((gpus > 1 ? gpus : 1))" "${all[@]}" \
  slurm/seeds.sbatch "$@" store.engine=false evaluate=false
submit evaluate "afterok:$last" "--array=${SEEDS:-0-2}" "${one[@]}" slurm/evaluate.sbatch "$@" store.engine=false
submit report "afterok:$last" slurm/report.sbatch "$@"
