# shellcheck shell=bash
# Shared by the scripts of this folder; source it, do not run it. Sets strict mode and goes to the repository root.
set -euo pipefail
repository_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository_root"

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Usage text of a script: its leading comment block.
usage() {
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
}

# stage NAME COMMAND [ARGUMENT...] runs a command between a heading and its duration and returns its status. A failure
# is also noted in $PRAAS_REPORTS/failed-stages, where scripts/summarize finds it.
stage() {
  local name=$1 started=$SECONDS status=0
  shift
  printf '== stage %s\n' "$name"
  "$@" || status=$?
  printf '== %s took %d s%s\n' "$name" $((SECONDS - started)) "$([[ $status -eq 0 ]] || printf ' and FAILED (%d)' "$status")"
  if [[ $status -ne 0 && -n ${PRAAS_REPORTS:-} ]]; then
    printf '%s\n' "$name" >>"$PRAAS_REPORTS/failed-stages"
  fi
  return "$status"
}

# Installs Debian packages that are missing when root, otherwise says which. On other systems it only reminds.
need_apt() {
  if ! command -v dpkg-query >/dev/null; then
    printf 'not a Debian system: make sure the equivalents of these packages are there: %s\n' "$*"
    return 0
  fi
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $(id --user) -ne 0 ]]; then
    fail "missing Debian packages; install them and run this again: apt-get install ${missing[*]}"
  fi
  apt-get update --quiet --quiet
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends "${missing[@]}" >/dev/null
}

need_node() {
  command -v node >/dev/null || fail 'no node on PATH; Node 20.19, or 22.13 or newer, is needed'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 13) || (a === 20 && b >= 19) ? 0 : 1)' ||
    fail "Node $(node --version) cannot load ES modules by require; Node 20.19, or 22.13 or newer, is needed"
}

# need_npm_packages [FOLDER [OPTION...]] installs npm dependencies exactly as locked, only when the lock file has changed
# since the last time. OPTIONs go to npm ci.
need_npm_packages() {
  need_node
  local folder=${1:-.} sum
  local stamp=$folder/node_modules/.package-lock.sha256
  sum=$(cd "$folder" && sha256sum package-lock.json)
  [[ -f $stamp && $(<"$stamp") == "$sum" ]] && return 0
  npm ci --prefix "$folder" --no-audit --no-fund "${@:2}"
  printf '%s\n' "$sum" >"$stamp"
}

# Keeps two builds out of one build directory, from here to unlock_directory or the end of the script.
lock_directory() {
  mkdir --parents "$1"
  exec 9>"$1/.lock"
  flock 9
}

unlock_directory() {
  exec 9>&-
}

# cmake_js DIR COMMAND [ARGUMENT...] drives CMakeLists.txt in a build directory.
cmake_js() {
  node node_modules/cmake-js/bin/cmake-js --directory "$repository_root" --out "$1" --config Debug --log-level error "${@:2}"
}

# configure_native DIR [OPTION...] configures the native build, which writes compile_commands.json, too.
configure_native() {
  [[ -d node_modules/cmake-js ]] || fail 'cmake-js is not installed; run npm ci'
  command -v cmake >/dev/null || fail 'cmake is not installed; run scripts/setup'
  cmake_js "$1" configure "${@:2}" >"$1/configure.log" 2>&1 && return
  cat "$1/configure.log" >&2
  fail 'cmake could not configure the native build'
}

# compile_tools FOLDER compiles the TypeScript programs of a folder outside of src into the same place below build. What they
# import of src is the build of this package.
compile_tools() {
  [[ -f build/Release/praas.node && -f dist/index.js ]] || fail 'the release build is missing; run npm run build'
  mkdir --parents "build/$1"
  ln --symbolic --force --no-dereference ../dist build/src
  node_modules/.bin/esbuild "$1"/*.ts --platform=node --format=esm --target=node20 --sourcemap --outdir="build/$1" \
    --log-level=warning
}
