#!/usr/bin/env bash
# A run on GPU nodes of a Slurm cluster.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/command_line.sh
source "$here/command_line.sh"

usage() {
  cat <<'HELP'
Runs electra-jax on GPU nodes of a Slurm cluster, one task for each GPU: jax.distributed takes
SLURM_NTASKS for the number of processes and gives each task the GPU of its SLURM_LOCALID.

  launch/slurm.sh COMMAND --name NAME [flags] [-- WORDS]

  submit   queue `electra-jax WORDS`, unless a job of this name is queued or runs
  logs     follow the output
  status   the job in the queue
  delete   cancel it

  --name NAME              of the job
  --nodes N                default 1
  --gpus-per-node N        as many as a node has: JAX counts them from 0 (submit)
  --cpus-per-task N        a task has one GPU; default: the cluster's, often a single one
  --time LIMIT             of one turn in the queue, such as 24:00:00 (submit)
  --partition, --account   default: those of the cluster
  --venv DIR               where electra-jax is installed; default: it is on the PATH
  --container IMAGE        a .sif file through Apptainer, or an image through Pyxis
  --log-dir DIR            default: slurm-logs
  --max-restarts N         crashes after which it is not queued again (default 3)
  --grace SECONDS          for saving before the time limit (default 120)
  --dry-run                show the commands, run none

SIGTERM comes --grace seconds before the time limit; the program saves and ends with 75, and
the job is queued again, as often as it takes. Status 2 ends the job at once. sbatch reads its
own variables, too (SBATCH_QOS, SBATCH_CONSTRAINT, …).
HELP
}

name='' nodes=1 gpus_per_node='' cpus_per_task='' time='' partition='' account='' venv='' container=''
log_dir=slurm-logs max_restarts=3 grace=120

queued() { squeue --noheader --user="$(id -un)" --name="$name" --format=%i; }

submit() {
  require gpus-per-node time
  require_positive nodes gpus-per-node
  [[ -z $cpus_per_task ]] || require_positive cpus-per-task
  require_number max-restarts grace
  require_program
  [[ -z $venv || -z $container ]] || fail "give --venv or --container, not both"
  local job
  job=$([[ -n $dry_run ]] || queued)
  if [[ -n $job ]]; then
    say "$name is there already: job $job"
    return
  fi
  run mkdir -p "$log_dir"
  run rm -f "$log_dir/$name.failures"
  # Without B: the signal goes to the tasks. The log of one turn follows that of the last.
  run sbatch --parsable --job-name="$name" --nodes="$nodes" \
    --ntasks-per-node="$gpus_per_node" --gpus-per-node="$gpus_per_node" --time="$time" \
    --signal="TERM@$grace" --requeue --open-mode=append --output="$log_dir/$name.log" \
    ${cpus_per_task:+"--cpus-per-task=$cpus_per_task"} \
    ${partition:+"--partition=$partition"} ${account:+"--account=$account"} \
    "$here/slurm.sbatch" ${venv:+--venv "$venv"} ${container:+--container "$container"} \
    --max-restarts "$max_restarts" --failures "$log_dir/$name.failures" -- "${program[@]}"
}

logs() { run tail -n 100 -F "$log_dir/$name.log"; }

status() { run squeue --user="$(id -un)" --name="$name"; }

delete() {
  if [[ -z $dry_run && -z $(queued) ]]; then say "$name: not there"; else
    run scancel --user="$(id -un)" --name="$name"
  fi
}

parse "name nodes gpus-per-node cpus-per-task time partition account venv container log-dir max-restarts grace" \
  "" "$@"
[[ -n $command ]] || fail "which command? submit, logs, status, delete"
require name
require_tool sbatch squeue scancel
case $command in
  submit | logs | status | delete) "$command" ;;
  *) fail "no such command: $command (see --help)" ;;
esac
