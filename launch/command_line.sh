# Flags, errors and dry runs, as all launch scripts have them. Sourced, not run.
# shellcheck shell=bash

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
  printf '%s: needs bash 4.4 or newer\n' "${0##*/}" >&2
  exit 2
}

command=''
program=()
dry_run=''

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Status 2: to be mended by the caller, not to be tried again.
fail() {
  say "$@"
  exit 2
}

# parse "VALUES" "SWITCHES" "$@": --some-flag sets the variable some_flag. Words after -- are the
# program's; the one word before them is the command.
parse() {
  local values=" ${1//$'\n'/ } " switches=" $2 dry-run " flag
  shift 2
  while (($#)); do
    flag=${1%%=*}
    flag=${flag#--}
    case $1 in
      --help | -h) usage && exit 0 ;;
      --) program=("${@:2}") && return ;;
      --*)
        if [[ $switches == *" $flag "* && $1 != *=* ]]; then
          printf -v "${flag//-/_}" yes
        elif [[ $values != *" $flag "* ]]; then
          fail "no such flag: ${1%%=*} (see --help)"
        elif [[ $1 == *=* ]]; then
          printf -v "${flag//-/_}" %s "${1#*=}"
        else
          (($# > 1)) || fail "$1 wants a value"
          [[ $2 != -- ]] || fail "$1 wants a value"
          printf -v "${flag//-/_}" %s "$2"
          shift
        fi
        ;;
      *)
        [[ -z $command ]] || fail "unexpected word: $1 (the program's words stand after --)"
        command=$1
        ;;
    esac
    shift
  done
}

# require FLAG…: each has a value.
require() {
  local flag
  for flag in "$@"; do
    local variable=${flag//-/_}
    [[ -n ${!variable} ]] || fail "--$flag is missing (see --help)"
  done
}

# require_number FLAG…: each is a whole number of at least 0; require_positive: of at least 1.
require_number() {
  local flag
  for flag in "$@"; do
    local variable=${flag//-/_}
    [[ ${!variable} =~ ^[0-9]+$ ]] || fail "--$flag wants a number, not '${!variable}'"
  done
}

require_positive() {
  require_number "$@"
  local flag
  for flag in "$@"; do
    local variable=${flag//-/_}
    ((10#${!variable} > 0)) || fail "--$flag must be at least 1"
  done
}

# require_tool TOOL…: each can be run, unless nothing is run.
require_tool() {
  local tool
  for tool in "$@"; do
    [[ -n $dry_run ]] || command -v "$tool" >/dev/null || fail "$tool is not on the PATH"
  done
}

require_program() {
  ((${#program[@]})) || fail "nothing to run: give the words of the electra-jax command after --"
}

# Words as one line that a shell reads back as the same words.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

# Runs a command; in a dry run only shows it.
run() {
  if [[ -n $dry_run ]]; then quoted "$@"; else "$@"; fi
}
