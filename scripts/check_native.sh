#!/usr/bin/env bash
# Tests everything that is known to go wrong at a native boundary. `make check-native` runs it in full;
# .ci/run runs the shorter form, with --short. docs/native.md describes what each step shows.
set -euo pipefail
cd "$(dirname "$0")/.."

short=
case "${1:-}" in
"") ;;
--short) short=1 ;;
*) echo "usage: $0 [--short]" >&2; exit 2 ;;
esac
GO="${GO:-go}"
pick() { if [ "$short" ]; then echo "$1"; else echo "$2"; fi; } # SHORT LONG

exec 3>&2 # for messages that bypass the log
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# step NAME COMMAND... runs a command, and shows its output only if it fails.
step() {
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$log" 2>&1; then
    printf '%-66s ok %4ds\n' "$name" "$((SECONDS - start))"
  else
    cat "$log"
    printf '%-66s FAILED: %s\n' "$name" "$*"
    exit 1
  fi
}

vulnerabilities() {
  make -s vuln && return
  # If the database cannot be reached, the program is neither good nor bad: warn the caller instead of failing.
  grep -q "fetching vulnerabilities" "$log" || return 1
  echo "known vulnerabilities: NOT CHECKED, because the database cannot be reached" >&3
}
licences() {
  make -s licences &&
  git diff --exit-code -- docs/licences.md
}

fake=(env TFBERT_FAKETF=1 "$GO" test -short -count 1 -timeout 10m)
step "fake library, race detector" "${fake[@]}" -race ./tf
step "fake library, address sanitizer on both sides, leaks" "${fake[@]}" -asan ./tf
step "fake library, frequent garbage collection" env GOGC=1 "${fake[@]}" ./tf
step "fake library, GODEBUG=checkfinalizers=1" env GODEBUG=checkfinalizers=1 "${fake[@]}" ./tf
step "fake library, GOEXPERIMENT=cgocheck2" env GOEXPERIMENT=cgocheck2 "${fake[@]}" ./tf
step "TensorFlow, the same tests" "$GO" test -count 1 ./tf
step "TensorFlow, leaks" env TFBERT_LEAKS="$(pick short full)" "$GO" test -count 1 -run 'TestLeaks$' ./tf
step "older versions of TensorFlow" make -s check-versions VERSIONS="$(pick 2.15.1 "2.15.1 2.18.1")"
step "hostile files: every fuzz target" make -s fuzz FUZZTIME="$(pick 2000x 10s)"
step "modules match go.sum" make -s verify
step "known vulnerabilities" vulnerabilities
step "licences are allowed and listed" licences
step "bill of materials" make -s sbom
step "two builds have the same bytes" scripts/reproducible.sh $(pick --short "")
echo "all steps passed in ${SECONDS}s"
