#!/bin/bash
# Packs what a site without a network needs into one archive: images, manifests, the Helm chart, the documentation, and what
# each file's checksum is. The same sources and compiler give the same bytes.
# usage: integration/release.sh FOLDER [ARCHITECTURE...]    writes FOLDER/pairway-VERSION.tar; ARCHITECTURE: amd64, arm64,
# without one that of this machine
# environment: PROFILE of cargo, which the tests set to what they have built already
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
[ $# -ge 1 ] || { echo "usage: $0 FOLDER [amd64|arm64]..." >&2; exit 2; }
folder=$1
shift
[ $# -gt 0 ] || set -- "$(dpkg --print-architecture)"
version=$(sed -n '/^\[workspace\.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
release=pairway-$version
out=$folder/$release.tar

# What is not committed would be in the archive under the time and the name of what is.
changed=$(git status --porcelain -- config/deploy docs LICENSE CHANGELOG.md Cargo.toml Cargo.lock bgp config vxlan node-agent)
[ -z "$changed" ] || echo "$0: not committed, so that nobody else can make this archive:"$'\n'"$changed" >&2

# The time of the last commit stands for all times.
epoch=$(git log -1 --format=%ct)
pack() {
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$epoch" --format=gnu "$@"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$release
mkdir -p "$root/images" "$root/config"
for architecture in "$@"; do
  integration/image.sh "$root/images/pairway-$architecture.tar" "$architecture" "${PROFILE:-release}"
done
# Where the documentation says that they are, and no file that is not committed: links lead where they lead here.
git ls-files -z -- config/deploy config/samples config/schema.json docs LICENSE CHANGELOG.md README.md ARCHITECTURE.md SECURITY.md |
  while IFS= read -r -d '' file; do
    install -D -m 0644 "$file" "$root/$file"
  done
# As `helm package` would name it; that one writes the time of the day into it.
chart=$root/pairway-$version.tgz
pack --directory "$root/config/deploy/helm" pairway | gzip --no-name --best >"$chart"
(cd "$root" && find . -type f ! -name SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum) >"$work/sums"
mv "$work/sums" "$root/SHA256SUMS"

mkdir -p "$folder"
pack --file "$out.new" --directory "$work" "$release"
mv "$out.new" "$out"
echo "$out: $(du -h "$out" | cut -f1), $(sha256sum "$out" | cut -d' ' -f1); docs/install.md in it says how to use it"
