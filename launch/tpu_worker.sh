#!/usr/bin/env bash
# What cloud_tpu.sh does on each worker of a TPU. Lies, and keeps its files, in ~/electra-jax.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'HELP'
Runs on a worker of a TPU; cloud_tpu.sh copies it there and calls it.

  tpu_worker.sh install PACKAGE   into venv/: a wheel that lies here, or git+URL[@REF]
  tpu_worker.sh mount BUCKET      at bucket/, by gcsfuse
  tpu_worker.sh fetch GS_URL      a token store, to store/
  tpu_worker.sh start WORD…       electra-jax WORD… in the background, output to log
  tpu_worker.sh status            electra-jax: running | ended STATUS | not started
  tpu_worker.sh logs              follows log
  tpu_worker.sh stop SECONDS      SIGTERM, and SIGKILL after SECONDS
HELP
}

# The images come with Python 3.10, which is too old for JAX; uv brings a newer one.
install() {
  local uv=~/.local/bin/uv package=$1 constraint=()
  [[ -x $uv ]] || python3 -m pip install --user --quiet uv
  [[ -x venv/bin/python ]] || "$uv" venv --quiet --python 3.13 venv
  [[ $package != *.whl ]] || package="file://$PWD/$package" constraint=(--constraint requirements.txt)
  "$uv" pip install --quiet --python venv/bin/python --reinstall-package electra-jax \
    ${constraint[@]+"${constraint[@]}"} "electra-jax[tpu] @ $package"
}

install_gcsfuse() {
  local repository
  repository="gcsfuse-$(lsb_release -c -s)"
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
  echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc]" \
    "https://packages.cloud.google.com/apt $repository main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update -qq && sudo apt-get install -qq -y gcsfuse
}

# Without caches of names and sizes: on large machines they never expire, and a worker would
# not see what another one has written.
mount_bucket() {
  mkdir -p bucket
  ! mountpoint -q bucket || return 0
  command -v gcsfuse >/dev/null || install_gcsfuse
  gcsfuse --implicit-dirs --rename-dir-limit 200000 \
    --metadata-cache-ttl-secs 0 --metadata-cache-negative-ttl-secs 0 \
    "$1" bucket
}

fetch() {
  mkdir -p store
  gcloud storage rsync --recursive "$1" store
}

# The lock is held by the supervisor and the program: it tells whether either lives, also
# after a reboot, when a process number would mean nothing.
running() { ! flock --nonblock lock true; }

# Outlives the connection, and a SIGTERM until the program has saved; notes how it ended.
# shellcheck disable=SC2016
readonly SUPERVISOR='
  exec 9>lock
  flock --timeout 10 9 || exit 1
  trap : TERM
  echo $$ >group
  status=0
  "$@" || status=$?
  echo "$status" >status.partial && mv status.partial status
'

# Compiled programs outlive the worker in the bucket, where there is one.
start() {
  local environment=()
  exec 8>starting
  flock 8
  if running; then
    echo "electra-jax: running already" >&2
    exit 3
  fi
  ! mountpoint -q bucket || environment=("JAX_COMPILATION_CACHE_DIR=$PWD/bucket/xla-cache")
  rm -f status
  setsid bash -c "$SUPERVISOR" supervisor \
    env ${environment[@]+"${environment[@]}"} venv/bin/electra-jax "$@" \
    >>log 2>&1 8>&- </dev/null &
  wait_until_started
  echo "electra-jax: started"
}

wait_until_started() {
  for _ in {1..50}; do
    if [[ -f status ]] || running; then return; fi
    sleep 0.1
  done
  echo "electra-jax: did not start, see $PWD/log" >&2
  exit 1
}

status() {
  if running; then
    echo "electra-jax: running"
  elif [[ -f status ]]; then
    echo "electra-jax: ended $(<status)"
  elif [[ -f group ]]; then
    echo "electra-jax: ended 137" # killed together with its supervisor
  else
    echo "electra-jax: not started"
  fi
}

stop() {
  running || return 0
  local group
  group=$(<group)
  kill -TERM -- "-$group" 2>/dev/null || true
  for ((second = 0; second < $1; second++)); do
    running || return 0
    sleep 1
  done
  kill -KILL -- "-$group" 2>/dev/null || true
}

case ${1:-} in
  install) install "$2" ;;
  mount) mount_bucket "$2" ;;
  fetch) fetch "$2" ;;
  start) start "${@:2}" ;;
  status) status ;;
  logs) tail -n 100 -F log | sed -u "s/^/${HOSTNAME##*-w-}: /" ;;
  stop) stop "$2" ;;
  --help) usage ;;
  *) echo "tpu_worker.sh: no such command: ${1:-} (see --help)" >&2 && exit 2 ;;
esac
