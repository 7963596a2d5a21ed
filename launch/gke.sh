#!/usr/bin/env bash
# A run on TPU slices of a GKE cluster, as a JobSet.
# shellcheck disable=SC2034 # the manifest reads variables by their names
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/command_line.sh
source "$here/command_line.sh"

usage() {
  cat <<'HELP'
Runs electra-jax on TPU slices of a GKE cluster that has JobSet 0.10 or newer.

  launch/gke.sh COMMAND --name NAME [flags] [-- WORDS]

  apply    start `electra-jax WORDS`, one pod on each node of each slice
  logs     follow the output of a worker
  status   the JobSet and its pods
  delete   end the run (SIGTERM, and SIGKILL after --grace)

  --name NAME              of the JobSet
  --namespace NAMESPACE    default: default
  --context CONTEXT        of kubectl; default: the current one
  --image IMAGE            see launch/Dockerfile (apply)
  --accelerator LABEL      such as tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice (apply)
  --topology TOPOLOGY      of a slice, such as 4x4 (apply)
  --chips-per-node N       default 4
  --slices N               default 1
  --spot                   on Spot nodes
  --service-account NAME   the Kubernetes account with access to the bucket
  --bucket BUCKET          mount it at /work/bucket, the program runs in /work
  --queue QUEUE            Kueue's local queue
  --max-restarts N         crashes after which the run fails (default 3)
  --grace SECONDS          for saving after SIGTERM (default 120)
  --worker N|all           whose output to follow (logs; default 0)
  --dry-run                show the commands and the manifest, run none

Exit status 75 and the loss of a node start all pods again without being counted, status 2
fails the run at once, anything else is counted. A manifest that was changed is applied after
`delete` only: Kubernetes does not change a JobSet that exists.

  --xpk                    submit through xpk instead
  --cluster CLUSTER        of xpk
  --tpu-type TYPE          such as v5litepod-16, instead of accelerator and topology
  --project, --zone        default: those of gcloud's configuration

Through xpk status 75 is counted, too, and only 42, 75 and 127 to 255 start again; a bucket is
what `xpk storage` attached under the name that --bucket gives.
HELP
}

name='' namespace=default context='' image='' accelerator='' topology='' chips_per_node=4
slices=1 spot='' service_account='' bucket='' queue='' max_restarts=3 grace=120 worker=0
xpk='' cluster='' tpu_type='' project='' zone=''

kube() {
  local verb=$1
  shift
  run kubectl "$verb" ${context:+"--context=$context"} --namespace="$namespace" "$@"
}

xpk_workload() {
  local verb=$1
  shift
  run xpk workload "$verb" --cluster="$cluster" ${project:+"--project=$project"} \
    ${zone:+"--zone=$zone"} "$@"
}

# A YAML string, by way of JSON.
json_string() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  printf '"%s"' "${text//$'\t'/\\t}"
}

json_list() {
  local word comma=''
  printf '['
  for word in "$@"; do
    printf '%s%s' "$comma" "$(json_string "$word")"
    comma=', '
  done
  printf ']'
}

# Nodes of a slice.
count_workers() {
  local chips
  [[ $topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology wants a shape such as 4x4"
  chips=$((${topology//x/*}))
  ((chips >= chips_per_node)) || chips_per_node=$chips
  ((chips % chips_per_node == 0)) ||
    fail "a $topology slice has $chips chips, which $chips_per_node does not divide"
  workers=$((chips / chips_per_node))
}

# launch/jobset.yaml, filled in from the variables that it names.
manifest() {
  local line field value before after args
  args=$(json_list "${program[@]}")
  while IFS= read -r line; do
    if [[ $line =~ ^(.*[^ ])\ +"# if "([a-z_]+)$ ]]; then
      line=${BASH_REMATCH[1]} field=${BASH_REMATCH[2]}
      [[ -n ${!field} ]] || continue
    fi
    if [[ $line =~ ^([^#]*)"{{"([a-z_]+)"}}"(.*)$ ]]; then
      before=${BASH_REMATCH[1]} field=${BASH_REMATCH[2]} after=${BASH_REMATCH[3]}
      value=${!field}
      [[ $field == args || $value =~ ^[1-9][0-9]*$ || $value == 0 ]] || value=$(json_string "$value")
      line=$before$value$after
    fi
    printf '%s\n' "$line"
  done <"$here/jobset.yaml"
}

apply() {
  require image
  require_program
  require_number max-restarts grace
  require_positive slices chips-per-node
  if [[ -n $xpk ]]; then
    submit_with_xpk
    return
  fi
  require accelerator topology
  local workers
  count_workers
  if [[ -n $dry_run ]]; then
    printf "%s <<'MANIFEST'\n" "$(kube apply --filename=-)"
    manifest
    echo MANIFEST
  else
    manifest | kube apply --filename=-
  fi
}

# xpk fails where a workload of the name exists; kubectl apply does not.
submit_with_xpk() {
  require tpu-type
  if [[ -z $dry_run ]] && xpk_workload list --filter-by-job="$name" |
    awk -v name="$name" '$1 == name { found = 1 } END { exit !found }'; then
    say "$name is there already"
    return
  fi
  xpk_workload create --workload="$name" --tpu-type="$tpu_type" --num-slices="$slices" \
    --docker-image="$image" --command="$(quoted electra-jax "${program[@]}")" \
    ${bucket:+"--storage=$bucket"} --max-restarts="$max_restarts" --restart-on-exit-codes=75 \
    --termination-grace-period-seconds="$grace"
}

pods() { printf -- '--selector=jobset.sigs.k8s.io/jobset-name=%s' "$name"; }

# Worker 0 is that of the first slice.
logs() {
  local selector
  selector=$(pods)
  [[ $worker == all ]] ||
    selector+=",jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=$worker"
  kube logs "$selector" --follow --prefix --tail=100 --max-log-requests=64 \
    "$(if [[ -n $xpk ]]; then echo --all-containers; else echo --container=main; fi)"
}

status() {
  if [[ -n $xpk ]]; then
    xpk_workload list --filter-by-job="$name"
  else
    kube get "jobset/$name" --ignore-not-found
    kube get pods "$(pods)"
  fi
}

delete() {
  if [[ -n $xpk ]]; then
    xpk_workload delete --workload="$name" --force
  else
    kube delete "jobset/$name" --ignore-not-found
  fi
}

parse "name namespace context image accelerator topology chips-per-node slices service-account
  bucket queue max-restarts grace worker cluster tpu-type project zone" "spot xpk" "$@"
[[ -n $command ]] || fail "which command? apply, logs, status, delete"
require name
[[ -z $xpk ]] || require cluster
require_tool "$(if [[ -n $xpk && $command != logs ]]; then echo xpk; else echo kubectl; fi)"
case $command in
  apply | logs | status | delete) "$command" ;;
  *) fail "no such command: $command (see --help)" ;;
esac
