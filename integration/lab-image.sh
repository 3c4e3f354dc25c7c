#!/bin/sh
# Builds the lab's image without a container engine: Debian's iproute2 and friends with the pairway binary, as an
# archive that `docker load` and containerlab take. usage: integration/lab-image.sh BINARY OUT.tar
set -eu
[ $# -eq 2 ] || { echo "usage: $0 BINARY OUT.tar" >&2; exit 2; }
binary=$1 out=$2 tag=pairway-lab:latest
[ -x "$binary" ] || { echo "$0: no binary at $binary: run 'make build' first" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "$0: mmdebstrap is missing: run 'make lab-image' as root" >&2; exit 1; }

# The time of the last commit stands for all times, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# dash, not busybox: busybox's shell runs its own `ip`.
packages=iproute2,iputils-ping,nftables,procps,tcpdump,ca-certificates
mmdebstrap --quiet --variant=essential --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
  --customize-hook="install -D -m 0755 '$binary' \"\$1/usr/local/bin/pairway\"" \
  bookworm "$work/layer.tar" >/dev/null

mkdir "$work/root"
tar --extract --file "$work/layer.tar" --directory "$work/root" --exclude='./dev/*'
"$(dirname "$0")/archive.sh" "$work/root" "$tag" "$(dpkg --print-architecture)" "$out" '{"Cmd":["sleep","infinity"],
  "Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}'
echo "$out: $tag, $(du -h "$out" | cut -f1); load it with 'docker load --input $out'"
