#!/bin/sh
# Installs a release of tfbert for this user, after its sum is checked:
#
#   curl -fsSL https://raw.githubusercontent.com/tfbert/go/main/deploy/install.sh | sh
#
# TFBERT_VERSION chooses the version (default: the newest), PREFIX the folder (default: ~/.local), and TFBERT_RELEASES
# another place of the archives, such as file:///mnt/dist.
set -eu

fail() { echo "install.sh: $*" >&2; exit 1; }
fetch() { curl -fsSL --retry 3 -o "$2" "$1" || fail "cannot download $1"; }

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) arch=amd64 ;;
Linux-aarch64) arch=arm64 ;;
*) fail "there is no release for $(uname -s) on $(uname -m)" ;;
esac
command -v curl >/dev/null || fail "curl is needed"
prefix=${PREFIX:-$HOME/.local}
releases=${TFBERT_RELEASES:-https://github.com/tfbert/go/releases/${TFBERT_VERSION:+download/}${TFBERT_VERSION:-latest/download}}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch "$releases/SHA256SUMS" "$work/SHA256SUMS"
line=$(grep -E "^[0-9a-f]{64}  tfbert-v[^ /]*-linux-$arch\.tar\.gz\$" "$work/SHA256SUMS") || fail "SHA256SUMS lists no archive for linux/$arch"
[ "$(printf '%s\n' "$line" | wc -l)" -eq 1 ] || fail "SHA256SUMS lists several archives for linux/$arch"
archive=${line#*  }
fetch "$releases/$archive" "$work/$archive"
(cd "$work" && printf '%s\n' "$line" | sha256sum -c --quiet -) || fail "$archive does not have the sum in SHA256SUMS: nothing is installed"

tar -xzf "$work/$archive" -C "$work"
from=$work/${archive%.tar.gz}
mkdir -p "$prefix/bin" "$prefix/share/man/man1" "$prefix/share/bash-completion/completions"
install -m 755 "$from/tfbert" "$prefix/bin/tfbert"
install -m 644 "$from"/man/*.1 "$prefix/share/man/man1"
install -m 644 "$from/completions/tfbert.bash" "$prefix/share/bash-completion/completions/tfbert"
"$prefix/bin/tfbert" version
echo "Next: $prefix/bin/tfbert lib install"
