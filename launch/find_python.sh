#!/bin/sh
# Prints the newest Python of this machine that electra-jax is tested on, or checks the one given.
#
#   find_python.sh                      the newest of 3.13, 3.12 and 3.11
#   find_python.sh PYTHON               that one, if its version is among these
#   find_python.sh --version VERSION    one of that version
set -u

versions='3.13 3.12 3.11'

# Prints version and path of an interpreter that can make environments; fails if it cannot. It is
# run, because a name on the PATH may be a shim whose Python is not there.
describe() {
  "$1" -c 'import ensurepip, sys, venv
print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null
}

# find_version VERSION: the first candidate that is of that version.
find_version() {
  for candidate in "python$1" python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1"*/bin/python \
    "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$1"*/bin/python; do
    found=$(describe "$candidate") || continue
    [ "${found%% *}" != "$1" ] || { echo "${found#* }" && return; }
  done
  return 1
}

fail() {
  echo "find_python.sh: $*" >&2
  exit 2
}

case ${1:-} in
  '')
    for version in $versions; do
      if find_version "$version"; then exit; fi
    done
    fail "no Python of $versions with venv and ensurepip; install one, or name it: make PYTHON=…"
    ;;
  --version)
    find_version "$2" || fail "no Python $2 with venv and ensurepip on this machine"
    ;;
  *)
    found=$(describe "$1") || fail "$1 cannot make environments: it fails, or lacks venv or ensurepip"
    case " $versions " in
      *" ${found%% *} "*) echo "${found#* }" ;;
      *) fail "$1 is Python ${found%% *}; electra-jax is tested on $versions" ;;
    esac
    ;;
esac
