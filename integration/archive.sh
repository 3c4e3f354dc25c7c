#!/bin/bash
# Packs a folder as a container image of one layer, without a container engine: an archive in Docker's form with an OCI
# index beside it, which `ctr images import`, `docker load` and `skopeo` take. The same input gives the same bytes.
# usage: archive.sh FOLDER NAME:TAG ARCHITECTURE OUT.tar [CONFIG]   CONFIG: members of the image's "config" object, JSON
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: $0 FOLDER NAME:TAG ARCHITECTURE OUT.tar [CONFIG]" >&2; exit 2; }
root=$1 name=$2 architecture=$3 out=$4 config=${5:-'{}'}
epoch=${SOURCE_DATE_EPOCH:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pack() {
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=gnu "$@"
}
digest() {
  sha256sum "$1" | cut -d' ' -f1
}
# Puts a file among the blobs under its digest and prints that.
blob() {
  local sum
  sum=$(digest "$1")
  mv "$1" "$work/image/blobs/sha256/$sum"
  echo "$sum"
}

mkdir -p "$work/image/blobs/sha256"
pack --file "$work/layer" --directory "$root" .
layer_size=$(stat -c %s "$work/layer")
layer=$(blob "$work/layer")
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
cat >"$work/config" <<JSON
{"architecture":"$architecture","os":"linux","created":"$created","config":$config,
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},"history":[{"created":"$created","created_by":"pairway"}]}
JSON
config_size=$(stat -c %s "$work/config")
config=$(blob "$work/config")
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},
 "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$layer","size":$layer_size}]}
JSON
manifest_size=$(stat -c %s "$work/manifest")
manifest=$(blob "$work/manifest")
cat >"$work/image/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
 {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,
  "platform":{"architecture":"$architecture","os":"linux"},
  "annotations":{"io.containerd.image.name":"$name","org.opencontainers.image.ref.name":"${name##*:}"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
cat >"$work/image/manifest.json" <<JSON
[{"Config":"blobs/sha256/$config","RepoTags":["$name"],"Layers":["blobs/sha256/$layer"]}]
JSON
mkdir -p "$(dirname "$out")"
pack --file "$out.new" --directory "$work/image" .
mv "$out.new" "$out"
