#!/usr/bin/env bash
# Builds the release twice and compares the bytes. Both builds start from a clone of the commit that is
# checked out, each in its own folder, build cache and time zone. With --short the first build uses the
# user's build cache, which halves the time once that cache is filled.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$*" in
  "") first= ;;
  --short) first=$(go env GOCACHE) ;;
  *) echo "usage: scripts/reproducible.sh [--short]" >&2; exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # FOLDER BUILD_CACHE TIME_ZONE
  git clone --quiet . "$work/$1"
  GOCACHE=$2 TZ=$3 make --no-print-directory --silent -C "$work/$1" program BIN=bin/tfbert
}
build one "${first:-$work/cache}" UTC
build two/in/a/longer/folder "$work/cache2" Asia/Kathmandu

one=$work/one/bin/tfbert two=$work/two/in/a/longer/folder/bin/tfbert
if ! cmp "$one" "$two"; then
  diff <(cd "$work/one" && go version -m bin/tfbert) \
    <(cd "$work/two/in/a/longer/folder" && go version -m bin/tfbert) || true
  echo "the two builds of $(git rev-parse HEAD) differ" >&2
  exit 1
fi
echo "$(git rev-parse HEAD): both builds have the SHA-256 $(sha256sum <"$one" | cut -d' ' -f1)"
