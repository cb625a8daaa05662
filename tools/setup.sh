#!/usr/bin/env bash
# What ./demo and ./test share: install what is missing, make .venv with the pinned PyTorch, build everything.
# Every step leaves a mark that the next run sees, so a second run costs seconds; details go to out/logs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly packages=(g++ cmake ninja-build ccache pkg-config python3 python3-venv ca-certificates libfmt-dev nlohmann-json3-dev
  libcli11-dev libxxhash-dev libpng-dev libminizip-dev libgtest-dev libgmock-dev libbenchmark-dev llvm-19-dev)
readonly pins=(torch==2.11.0 numpy==2.4.6 setuptools==80.9.0 wheel==0.45.1 pytest==9.0.1 expecttest==0.3.0)
readonly logs=out/logs
readonly started=$SECONDS
mkdir -p "$logs"

say() { printf '%4d s  %s\n' $((SECONDS - started)) "$*"; }
die() { say "$*" >&2; exit 1; }

child=
stop_child() { [[ -z $child ]] || kill -- "-$child" 2>/dev/null || true; }
trap 'stop_child; exit 130' INT TERM
trap stop_child EXIT

# step LOG "what it does" COMMAND...: one line for the step. On a terminal the line follows the newest line of the log, elsewhere
# one is printed every 30 s. The command runs in a process group of its own, so that Ctrl-C ends all of it.
step() {
  local log=$logs/$1.log what=$2 from=$SECONDS shown=$SECONDS status=0 last
  shift 2
  [[ -t 1 ]] || say "$what ..."
  set -m
  (set -euo pipefail; "$@") >"$log" 2>&1 </dev/null &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null; do
    if [[ -t 1 ]]; then
      last=$(tail -c 2000 "$log" | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 || true)
      printf '\r\033[K%4d s  %s  \033[2m%.*s\033[0m' $((SECONDS - started)) "$what" $((${COLUMNS:-100} - ${#what} - 12)) "$last"
    elif ((SECONDS - shown >= 30)); then
      shown=$SECONDS
      last=$(tail -c 2000 "$log" | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 || true)
      say "  $what: ${last:0:110}"
    fi
    sleep 0.2
  done
  wait "$child" || status=$?
  child=
  [[ ! -t 1 ]] || printf '\r\033[K'
  if ((status == 0)); then
    say "$what: done in $((SECONDS - from)) s"
  else
    say "$what: FAILED with status $status after $((SECONDS - from)) s; the end of $log:" >&2
    tail -n 40 "$log" >&2
  fi
  return "$status"
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo ${CI:+-n} "$@"; fi
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get -o Acquire::Retries=3 update
  as_root apt-get -o Acquire::Retries=3 install -y --no-install-recommends "$@"
}

# The packages that are not there. One call of dpkg-query for all: this runs every time.
missing_packages() {
  local have
  have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^installed //p' || true)
  printf '%s\n' "${packages[@]}" | grep -vxF -e "${have:-none}" || true
}

setup_packages() {
  if ! command -v dpkg-query >/dev/null; then
    for tool in g++ cmake ninja python3 llvm-config-19; do
      command -v "$tool" >/dev/null || die "$tool is missing. This script installs packages on Debian 12+ and Ubuntu 24.04+ only; elsewhere install: ${packages[*]}"
    done
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "Not root and no sudo. Install, then run this again: apt-get install ${missing[*]}"
    [[ -n ${CI:-} ]] || sudo -v  # asks for the password here, in the foreground
  fi
  step apt "Installing ${#missing[@]} packages (${missing[*]})" install_packages "${missing[@]}" ||
    die "Debian 12 or Ubuntu 24.04 and newer have all of them; on older releases install LLVM 19 and CMake 3.25 by hand."
}

install_torch() {
  [[ -x .venv/bin/python ]] || python3 -m venv .venv
  local attempt
  for attempt in 1 2 3 4; do
    .venv/bin/python -m pip install --disable-pip-version-check --retries 5 --timeout 60 "${pins[@]}" && return
    echo "attempt $attempt failed; once more in $((attempt * 10)) s"
    sleep $((attempt * 10))
  done
  return 1
}

setup_torch() {
  local stamp=.venv/.pins
  [[ -f $stamp && $(<"$stamp") == "${pins[*]}" ]] && return
  step pip "Installing ${pins[*]} into .venv (about 3 GB the first time)" install_torch ||
    die "Is there a network, and 8 GB of disk? Run this again to go on."
  echo "${pins[*]}" >"$stamp"
}

# As many compilers as there are cores, with 2.5 GB each: that's what a file with torch headers takes.
jobs_for_memory() {
  local by_memory
  by_memory=$(awk '/MemAvailable/ {print int($2 / 2500000)}' /proc/meminfo)
  ((by_memory >= 1)) || by_memory=1
  echo $((by_memory < $(nproc) ? by_memory : $(nproc)))
}

configure_and_build() {
  [[ -f build/full/build.ninja ]] || cmake --preset full
  cmake --build --preset full -j "$(jobs_for_memory)"
}

# .venv/bin/heddle starts the program in the build folder of the checkout that .venv lies in, or what the package has of it.
install_command() {
  [[ -x build/full/heddle ]] || return 0
  cat >.venv/bin/heddle <<'SHIM'
#!/usr/bin/env bash
# Starts the heddle command of this checkout; cd is logical, so .venv may be a link to a shared one.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
case ${1:-} in
  compare | explain) exec "$root/.venv/bin/python" -m heddle "$@" ;;
  *) exec "$root/build/full/heddle" "$@" ;;
esac
SHIM
  chmod +x .venv/bin/heddle
}

# The package, in .venv: a link to this checkout, so that it's there once and stays current.
install_package() {
  .venv/bin/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e .
}
setup_package() {
  local stamp=.venv/.package
  [[ -f $stamp && $(<"$stamp") == "$(cksum pyproject.toml) $PWD" ]] && return
  step package "Installing the Python package heddle into .venv" install_package || exit 1
  echo "$(cksum pyproject.toml) $PWD" >"$stamp"
}

setup() {
  setup_packages
  setup_torch
  step build "Building" configure_and_build || exit 1
  install_command
  setup_package
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || setup
