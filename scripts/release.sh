#!/usr/bin/env bash
# Makes a release in dist/: an archive for linux/amd64 and one for linux/arm64, each with the program, completion
# scripts, man pages, licences and a bill of materials, and SHA256SUMS over both. The same commit makes the same archives.
#
# The C compiler is `zig cc` if ZIG names a zig (ZIG='python3 -m ziglang' after `pip install ziglang`) or one is in PATH.
# It links for glibc 2.27, which TensorFlow needs anyway. Otherwise it is Debian's gcc, also for the other machine
# (apt install gcc-aarch64-linux-gnu), and the programs need a glibc as new as this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

GO=${GO:-go}
version=$(sed -n 's/^## \(v[0-9][^ ]*\).*/\1/p' CHANGELOG.md | head -n 1)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
host=$($GO env GOHOSTARCH)
zig=${ZIG:-$(command -v zig || true)}
warn() { echo "release: $*" >&2; }

case "$(git describe --tags --exact-match 2>/dev/null || true)" in
"$version") ;;
*) warn "this commit is not tagged $version, and its programs say so" ;;
esac

machine() { case $1 in amd64) echo x86_64 ;; arm64) echo aarch64 ;; esac; }
compiler() {
  if [ -n "$zig" ]; then
    echo "$zig cc -target $(machine "$1")-linux-gnu.2.27"
  elif [ "$1" = "$host" ]; then
    echo gcc
  else
    echo "$(machine "$1")-linux-gnu-gcc"
  fi
}
# needs PROGRAM prints the newest glibc whose symbols a program has.
needs() { readelf -W --dyn-syms "$1" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1; }

rm -rf dist
mkdir -p dist bin
make --no-print-directory --silent licences # writes bin/THIRD_PARTY_NOTICES
for arch in amd64 arm64; do
  echo "== linux/$arch, $(compiler $arch)"
  GOARCH=$arch CC=$(compiler $arch) make --no-print-directory --silent program BIN="bin/release/$arch/tfbert"
  echo "needs $(needs "bin/release/$arch/tfbert")"
done

# start ARCH ARGS... runs a program, that of another machine by qemu.
start() {
  local arch=$1 emulator
  shift
  if [ "$arch" = "$host" ]; then
    "bin/release/$arch/tfbert" "$@"
    return
  fi
  emulator=$(command -v "qemu-$(machine "$arch")-static" || command -v "qemu-$(machine "$arch")" || true)
  if [ -z "$emulator" ] || [ ! -d "/usr/$(machine "$arch")-linux-gnu" ]; then
    warn "linux/$arch was NOT STARTED: apt install qemu-user-static libc6-$arch-cross"
    return
  fi
  "$emulator" -L "/usr/$(machine "$arch")-linux-gnu" "bin/release/$arch/tfbert" "$@"
}

for arch in amd64 arm64; do
  name=tfbert-$version-linux-$arch
  to=dist/$name
  mkdir -p "$to/completions" "$to/man"
  cp "bin/release/$arch/tfbert" LICENSE README.md CHANGELOG.md bin/THIRD_PARTY_NOTICES docs/licences.md deploy/tfbert.service "$to"
  start "$host" completion bash >"$to/completions/tfbert.bash"
  start "$host" completion zsh >"$to/completions/_tfbert"
  start "$host" completion fish >"$to/completions/tfbert.fish"
  TFBERT_MAN=$PWD/$to/man $GO test -count 1 -run '^TestManPages$' ./cmd/tfbert >/dev/null
  $GO tool -modfile=tools/go.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -output "$to/tfbert.cdx.json" \
    "bin/release/$arch/tfbert" 2>/dev/null
  start "$arch" version
  find "$to" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  chmod -R u=rwX,go=rX "$to"
  tar --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -C dist -cf - "$name" | gzip -n -9 >"$to.tar.gz"
  rm -r "$to"
done
(cd dist && sha256sum ./*.tar.gz | sed 's#\./##' >SHA256SUMS && cat SHA256SUMS)
