#!/bin/sh
# Builds the lab's image without a container engine: Debian's iproute2 and friends with the pairway binary, as an
# archive that `docker load` and containerlab take. usage: integration/image.sh BINARY OUT.tar
set -eu
[ $# -eq 2 ] || { echo "usage: $0 BINARY OUT.tar" >&2; exit 2; }
binary=$1 out=$2 tag=pairway-lab:latest
[ -x "$binary" ] || { echo "$0: no binary at $binary: run 'make build' first" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "$0: mmdebstrap is missing: run 'make image' as root" >&2; exit 1; }

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

layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
architecture=$(dpkg --print-architecture)
cat >"$work/config.json" <<JSON
{"architecture":"$architecture","os":"linux","created":"$created",
 "config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sleep","infinity"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},
 "history":[{"created":"$created","created_by":"pairway integration/image.sh"}]}
JSON
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]\n' "$tag" >"$work/manifest.json"

mkdir -p "$(dirname "$out")"
tar --create --file "$out" --directory "$work" --sort=name --owner=0 --group=0 --numeric-owner \
  --mtime="@$SOURCE_DATE_EPOCH" config.json layer.tar manifest.json
echo "$out: $tag, $(du -h "$out" | cut -f1); load it with 'docker load --input $out'"
