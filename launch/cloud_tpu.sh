#!/usr/bin/env bash
# A run on Cloud TPU VMs, which are asked for as a queued resource.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/command_line.sh
source "$here/command_line.sh"
# shellcheck source=launch/exit_status.sh
source "$here/exit_status.sh"

usage() {
  cat <<'HELP'
Runs electra-jax on all workers of a Cloud TPU slice.

  launch/cloud_tpu.sh COMMAND --name NAME --project PROJECT --zone ZONE [flags] [-- WORDS]

  create   ask for the slice and wait until it is there
  setup    install electra-jax on all workers, mount the bucket, fetch the token store
  start    start `electra-jax WORDS` on all workers; it survives the end of the connection
  logs     follow the output of a worker
  status   the state of the slice and of the program on each worker
  stop     SIGTERM to the program: it saves and ends
  run      create, setup, start and watch; resumes from the last checkpoint after a
           preemption (slice gone, or exit status 75); ends when the program ended with 0,
           on status 2, and after --max-restarts other failures
  delete   give the slice back

  --name NAME                of the queued resource and of its node
  --project, --zone          default: CLOUDSDK_CORE_PROJECT, CLOUDSDK_COMPUTE_ZONE
  --accelerator-type TYPE    such as v5litepod-16, v5p-32, v6e-16 (create, run)
  --runtime-version VERSION  default: that of the accelerator's generation
  --spot                     cheaper, and preempted when others want it
  --service-account EMAIL    whose rights the workers have
  --network, --subnetwork    default: the project's default network
  --internal-ip              connect to the workers' internal addresses
  --git URL[@REF]            install from there instead of from this checkout (setup, run)
  --bucket BUCKET            mount it on all workers at ~/electra-jax/bucket (setup, run);
                             compiled programs are kept in it, too
  --store gs://…             copy this token store to ~/electra-jax/store (setup, run)
  --worker N|all             whose output to follow (logs; default 0)
  --max-restarts N           failures after which run gives up (default 3)
  --poll SECONDS             between two looks (default 30)
  --grace SECONDS            between SIGTERM and SIGKILL (default 120)
  --delete-at-end            run gives the slice back when the program has finished
  --dry-run                  show the commands, run none

The program runs in ~/electra-jax on each worker, so that `--workdir bucket/runs/base` and
`--config.data.store=store` are in the bucket and on the worker's disk. With several workers
gcloud wants the key in an agent: ssh-add ~/.ssh/google_compute_engine.
HELP
}

name='' project=${CLOUDSDK_CORE_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}
accelerator_type='' runtime_version='' spot='' service_account='' network='' subnetwork=''
internal_ip='' git='' bucket='' store='' worker=0
max_restarts=3 poll=30 grace=120 delete_at_end=''

tpus() { run gcloud compute tpus "$@" --project="$project" --zone="$zone"; }

on_workers() {
  local workers=$1
  shift
  tpus tpu-vm ssh "$name" --worker="$workers" ${internal_ip:+--internal-ip} --quiet \
    --command="$(quoted bash electra-jax/tpu_worker.sh "$@")"
}

# https://cloud.google.com/tpu/docs/runtimes
default_runtime_version() {
  case $accelerator_type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v4-* | v3-* | v2-*) echo tpu-ubuntu2204-base ;;
    *) fail "no runtime version is known for $accelerator_type: give --runtime-version" ;;
  esac
}

# The state of the queued resource or of its tpu-vm, into `state`; MISSING if it is not there.
look_up() {
  local field=state
  [[ $1 == tpu-vm ]] || field=state.state
  if state=$(tpus "$1" describe "$name" --format="value($field)" 2>"$errors"); then
    return
  elif grep -qi "not.found" "$errors"; then
    state=MISSING
  else
    cat "$errors" >&2
    return 1
  fi
}

request() {
  tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$accelerator_type" --runtime-version="$runtime_version" \
    ${spot:+--spot} ${service_account:+"--service-account=$service_account"} \
    ${network:+"--network=$network"} ${subnetwork:+"--subnetwork=$subnetwork"}
}

# Also takes the node, and whatever state the request is in.
withdraw() { tpus queued-resources delete "$name" --force --quiet; }

# Asks anew where the request is one that never becomes a slice again. Called where `set -e` is
# off (`if create`), like all that follows: what may fail is chained.
create() {
  if [[ -n $dry_run ]]; then
    request && tpus queued-resources describe "$name" --format="value(state.state)"
    return
  fi
  local state said=''
  while look_up queued-resources; do
    [[ $state == "$said" ]] || say "$name: $state"
    said=$state
    case $state in
      ACTIVE) return ;;
      MISSING) request || return ;;
      SUSPENDED) withdraw || return ;;
      FAILED)
        say "$name: gcloud compute tpus queued-resources describe tells why; delete it first"
        return 1
        ;;
    esac
    sleep "$poll"
  done
  return 1
}

delete() {
  local state=''
  [[ -n $dry_run ]] || look_up queued-resources || return
  if [[ $state == MISSING ]]; then say "$name: not there"; else withdraw; fi
}

# What becomes ~/electra-jax on the workers, into the folder `files`.
gather() {
  run rm -rf "$files" && run mkdir -p "$files" && run cp "$here/tpu_worker.sh" "$files" || return
  [[ -z $git ]] || return 0
  run cp "$checkout/requirements.txt" "$files" &&
    run python3 -m pip wheel --quiet --no-deps --wheel-dir "$files" "$checkout"
}

setup() {
  local checkout=${here%/*} files package version
  files=$checkout/dist/electra-jax
  version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$checkout/electra_jax/__init__.py")
  package=electra_jax-$version-py3-none-any.whl
  [[ -z $git ]] || package=git+$git
  gather &&
    tpus tpu-vm scp --recurse "$files" "$name:" --worker=all ${internal_ip:+--internal-ip} \
      --quiet &&
    on_workers all install "$package" || return
  [[ -z $bucket ]] || on_workers all mount "$bucket" || return
  [[ -z $store ]] || on_workers all fetch "$store"
}

# Into `running`, `not_started` (how many workers) and `ended` (statuses of the others).
look_at_workers() {
  local lines line
  running=0 not_started=0 ended=()
  lines=$(on_workers all status) || return 1
  while IFS= read -r line; do
    case $line in
      "electra-jax: running") running=$((running + 1)) ;;
      "electra-jax: not started") not_started=$((not_started + 1)) ;;
      "electra-jax: ended "*) ended+=("${line##* }") ;;
    esac
  done <<<"$lines"
  ((running + not_started + ${#ended[@]}))
}

start() { on_workers all start "${program[@]}"; }

# The request may still be called active for a while after its node is gone.
gone() {
  local state
  look_up queued-resources || return
  [[ $state == ACTIVE ]] || return 0
  look_up tpu-vm || return
  [[ $state == MISSING || $state == PREEMPTED || $state == TERMINATED ]]
}

# Until the program has ended on all workers, or the slice is gone; into `outcome`.
watch() {
  while :; do
    if look_at_workers; then
      outcome=$(telling_status ${ended[@]+"${ended[@]}"})
      # The others wait in vain for the one that ended.
      ((running && outcome)) && on_workers all stop "$grace" && return
      ((running)) || break
    elif gone; then
      outcome=gone
      return
    fi
    sleep "$poll"
  done
  ((!not_started || outcome)) || outcome=1 # a worker was replaced, and knows of nothing
}

# Whether the program runs already: then `run` was itself started again.
runs_already() {
  local state
  look_up queued-resources && [[ $state == ACTIVE ]] &&
    look_at_workers 2>/dev/null && ((running))
}

# One start of the program, and its end in `outcome`. A slice may go while it is set up.
attempt() {
  if ! create; then
    outcome=1
  elif setup && start; then
    watch
  elif gone; then
    outcome=gone
  else
    outcome=1
    on_workers all stop "$grace" || true # where it did start
  fi
}

# Ends this script where `outcome` tells that nothing is to be started again.
settle() {
  case $outcome in
    "$FINISHED")
      finish
      exit
      ;;
    "$MISTAKEN")
      say "the program ended with status 2: mend what it says (logs), then run again"
      exit "$MISTAKEN"
      ;;
    "$PREEMPTED") say "the program was stopped and has saved; it is started again" ;;
    gone)
      say "$name was preempted"
      local state
      { look_up queued-resources && [[ $state == ACTIVE ]] && withdraw; } || true
      ;;
    *)
      failures=$((failures + 1))
      say "it failed with status $outcome (failure $failures)"
      ((failures <= max_restarts)) || exit "$outcome"
      ;;
  esac
}

run_to_the_end() {
  local failures=0 outcome running not_started ended
  if [[ -n $dry_run ]]; then
    create && setup && start && on_workers all status
    return
  fi
  if runs_already; then watch; else attempt; fi
  while :; do
    settle
    sleep "$poll"
    attempt
  done
}

finish() {
  say "the program has finished"
  if [[ -n $delete_at_end ]]; then delete; else
    say "$name still costs: launch/cloud_tpu.sh delete gives it back"
  fi
}

status() {
  local state=''
  if [[ -n $dry_run ]]; then
    tpus queued-resources describe "$name" --format="value(state.state)"
  else
    look_up queued-resources && say "$name: $state" || return
    [[ $state == ACTIVE ]] || return 0
  fi
  on_workers all status
}

parse "name project zone accelerator-type runtime-version service-account network subnetwork
  git bucket store worker max-restarts poll grace" "spot internal-ip delete-at-end" "$@"
[[ -n $command ]] || fail "which command? create, setup, start, logs, status, stop, run, delete"
require name project zone
require_number poll grace max-restarts
if [[ $command == create || $command == run ]]; then
  require accelerator-type
  runtime_version=${runtime_version:-$(default_runtime_version)}
fi
[[ $command != start && $command != run ]] || require_program
require_tool gcloud
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
case $command in
  create | setup | start | status | delete) "$command" ;;
  logs) on_workers "$worker" logs ;;
  stop) on_workers all stop "$grace" ;;
  run) run_to_the_end ;;
  *) fail "no such command: $command (see --help)" ;;
esac
