#!/usr/bin/env bash
# Several processes of one run on this machine.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/command_line.sh
source "$here/command_line.sh"
# shellcheck source=launch/exit_status.sh
source "$here/exit_status.sh"

usage() {
  cat <<'HELP'
Runs electra-jax as several processes on this machine, which find each other by
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  launch/local.sh --processes N [flags] -- pretrain --config … --workdir …

  --processes N              how many
  --devices-per-process N    give each N devices of the CPU (JAX_PLATFORMS=cpu)
  --gpus-per-process N       give each N GPUs of its own (CUDA_VISIBLE_DEVICES)
  --port PORT                of the coordinator; a free one is found by default
  --grace SECONDS            between SIGTERM and SIGKILL to the others when one process
                             died (default 60)
  --dry-run                  show the commands, start nothing

ELECTRA_JAX names the program (default electra-jax).

Each line of output begins with the number of its process. SIGTERM and SIGINT are passed on
to all. When one process dies the others are ended, and the status that tells most is
returned: 2 (an error to mend), then 75 (preempted, all saved), then the first other one.
HELP
}

processes='' devices_per_process='' gpus_per_process='' port='' grace=60
running=()  # process numbers by pid
prefixers=()
statuses=()
signalled='' # a signal came, and was passed on
ending='' asked='' reaper=''

free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 12000)) # below the ports that the kernel hands out
    (: <"/dev/tcp/localhost/$candidate") 2>/dev/null || break
  done
  printf '%s\n' "$candidate"
}

# The environment of process NUMBER, as words for env.
environment() {
  printf '%s\n' "JAX_COORDINATOR_ADDRESS=localhost:$port" \
    "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1"
  [[ -z $gpus_per_process ]] || printf '%s\n' "CUDA_VISIBLE_DEVICES=$(
    seq -s, $(($1 * gpus_per_process)) $((($1 + 1) * gpus_per_process - 1))
  )"
  [[ -z $devices_per_process ]] || printf '%s\n' JAX_PLATFORMS=cpu \
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices_per_process"
}

# Outlives the signals that end the processes, so that their last lines are seen.
prefix_lines() {
  trap '' INT TERM
  local line
  while IFS= read -r line || [[ -n $line ]]; do printf '%s: %s\n' "$1" "$line"; done
}

# So that Ctrl-C reaches a process once, from here (a second one would interrupt it at once),
# and SIGKILL reaches its children. Its number is in `group`.
in_a_group_of_its_own() {
  set -m
  "$@" &
  group=$!
  set +m
}

start() {
  local number=$1 output words
  mapfile -t words < <(environment "$number")
  words=(env "${words[@]}" "${ELECTRA_JAX:-electra-jax}" "${program[@]}")
  if [[ -n $dry_run ]]; then
    run "${words[@]}"
    return
  fi
  exec {output}> >(prefix_lines "$number")
  prefixers+=($!)
  in_a_group_of_its_own "${words[@]}" >&"$output" 2>&1 {output}>&- </dev/null
  running[group]=$number
  exec {output}>&-
}

pass_on() {
  local pid
  for pid in "${!running[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}

# shellcheck disable=SC2329 # called by in_a_group_of_its_own
kill_after_grace() {
  local pid
  sleep "$grace"
  for pid in "$@"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}

# One died, so the others wait for it in vain: ask them to end, then make them.
end_others() {
  [[ -z $ending && ${#running[@]} -gt 0 ]] || return 0
  ending=yes
  if [[ -z $signalled ]]; then
    say "ending the other processes"
    asked=yes
    pass_on TERM
  fi
  in_a_group_of_its_own kill_after_grace "${!running[@]}"
  reaper=$group
}

note_end() {
  local pid=$1 status=0
  wait "$pid" || status=$?
  say "process ${running[$pid]} ended with status $status"
  unset "running[$pid]"
  # A 75 may only say that the process heeded the SIGTERM from here; then the crash tells more.
  [[ $status == "$PREEMPTED" && -n $asked ]] || statuses+=("$status")
  ((status == FINISHED)) || end_others
}

# `wait -n` forgets all but one of those that end together, and misses one that ends just before
# it: it only wakes this loop, as a signal and a second's sleep do, too.
wait_for_all() {
  local pid
  while ((${#running[@]})); do
    sleep 1 &>/dev/null &
    wait -n "${!running[@]}" "$!" 2>/dev/null || true
    for pid in "${!running[@]}"; do kill -0 "$pid" 2>/dev/null || note_end "$pid"; done
  done
}

parse "processes devices-per-process gpus-per-process port grace" "" "$@"
[[ -z $command ]] || fail "unexpected word: $command (the program's words stand after --)"
require processes
require_positive processes
[[ -z $devices_per_process ]] || require_positive devices-per-process
[[ -z $gpus_per_process ]] || require_positive gpus-per-process
[[ -z $devices_per_process || -z $gpus_per_process ]] ||
  fail "--devices-per-process is of the CPU: give it or --gpus-per-process"
require_number grace
require_program
require_tool "${ELECTRA_JAX:-electra-jax}"
port=${port:-$(free_port)}

trap 'signalled=yes && pass_on TERM' TERM
trap 'signalled=yes && pass_on INT' INT
for ((number = 0; number < processes; number++)); do start "$number"; done
[[ -z $dry_run ]] || exit 0
[[ -z $signalled ]] || pass_on TERM # it came before all had started
wait_for_all
[[ -z $reaper ]] || kill -TERM -- "-$reaper" 2>/dev/null || true
for prefixer in "${prefixers[@]}"; do wait "$prefixer" || true; done
exit "$(telling_status ${statuses[@]+"${statuses[@]}"})"
