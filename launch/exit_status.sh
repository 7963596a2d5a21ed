# What the exit statuses of electra-jax tell a launcher. Sourced, not run.
# shellcheck shell=bash

readonly FINISHED=0   # done
readonly MISTAKEN=2   # an error that the user must mend; starting again would not help
readonly PREEMPTED=75 # nothing is lost: stopped by SIGTERM and saved, or others were not there yet

# The status, of several processes of one run, that tells most: an error to mend, then a
# preemption, then the first that is not 0.
telling_status() {
  local status told=$FINISHED
  for status in "$@"; do
    case $status in
      "$MISTAKEN") told=$MISTAKEN && break ;;
      "$PREEMPTED") told=$PREEMPTED ;;
      *) ((told)) || told=$status ;;
    esac
  done
  printf '%s\n' "$told"
}
