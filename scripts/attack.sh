#!/usr/bin/env bash
# Runs the attacks of the tests against a server of fake models, and prints their figures as a table.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
"${GO:-go}" test -count 1 -timeout 20m -run TestAttack -v ./serve/... >"$log" 2>&1 || status=$?
awk '
  /^=== RUN|^=== NAME/ { test = $3; sub("^TestAttack", "", test); next }
  /^ +[a-z_]+_test\.go:[0-9]+: / { # what a test says, without the place
    sub(/^ +[a-z_]+_test\.go:[0-9]+: /, "")
    if ($0 != "") printf "| %s | %s |\n", test, $0
  }
' "$log" | sed '1i | attack | figures |\n| --- | --- |'
if [ "$status" != 0 ]; then
  cat "$log" >&2
fi
exit "$status"
