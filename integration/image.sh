#!/bin/bash
# Builds the image of the agent from scratch, without a container engine: one static program, the system's certificate
# authorities, and the licences of what is linked. The same sources and compiler give the same bytes.
# usage: integration/image.sh OUT.tar [ARCHITECTURE [PROFILE [PROGRAM]]]
# ARCHITECTURE: amd64, arm64; PROFILE: of cargo, release; PROGRAM: pairway, or pairway-next, with which the tests upgrade
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
[ $# -ge 1 ] || { echo "usage: $0 OUT.tar [amd64|arm64 [PROFILE [pairway|pairway-next]]]" >&2; exit 2; }
out=$1 architecture=${2:-$(dpkg --print-architecture)} profile=${3:-release} program=${4:-pairway}
# A name of no registry: a node that lacks the image must not fetch somebody else's.
version=$(sed -n '/^\[workspace\.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
case $program in
  pairway) packages=(--package node-agent) ;;
  pairway-next) packages=(--package node-agent --package integration) version=$version-next ;;
  *) echo "$0: no image of $program: pairway or pairway-next" >&2; exit 2 ;;
esac
# The tests need both: with one set of features what both are made of is compiled once.
[ "$profile" != dev ] || packages=(--package node-agent --package integration)
name=localhost/pairway:$version

case $architecture in
  amd64) target=x86_64-unknown-linux-gnu ;;
  arm64) target=aarch64-unknown-linux-gnu ;;
  *) echo "$0: no image for $architecture: amd64 or arm64" >&2; exit 2 ;;
esac
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || { echo "$0: $authorities is missing: apt-get install ca-certificates" >&2; exit 1; }
for tool in jq git; do
  command -v "$tool" >/dev/null || { echo "$0: $tool is missing: apt-get install $tool" >&2; exit 1; }
done

# No path of this machine is in the program.
flags="-C target-feature=+crt-static --remap-path-prefix=$PWD=/pairway --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
  compiler=${target/-unknown/}-gcc
  command -v "$compiler" >/dev/null || { echo "$0: $compiler is missing: apt-get install gcc-${target/-unknown/}" >&2; exit 1; }
  flags="$flags -C linker=$compiler"
fi
# Where a test calls this it has Cargo's variables of that test, which libraries would be made anew for.
unset "${!CARGO_MANIFEST_@}" "${!CARGO_PKG_@}"
RUSTFLAGS=$flags cargo build --locked "${packages[@]}" --bin "$program" --profile "$profile" --target "$target"
folder=$profile
[ "$profile" != dev ] || folder=debug
binary=${CARGO_TARGET_DIR:-target}/$target/$folder/$program

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
mkdir -p "$root/etc/ssl/certs" "$root/usr/share/doc/pairway" "$root/tmp"
chmod 1777 "$root/tmp"
install -m 0755 "$binary" "$root/pairway"
install -m 0644 "$authorities" "$root$authorities"
# Names of hosts are asked for at the resolver that the pod was given; there is no other source of them here.
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
integration/licences.sh "$target" >"$root/usr/share/doc/pairway/THIRD-PARTY.txt"
install -m 0644 LICENSE "$root/usr/share/doc/pairway/"
# What a static program has of the C library, and whose list of authorities that is, in Debian's words.
for package in libc6 libgcc-s1 ca-certificates; do
  install -m 0644 "$(readlink -f "/usr/share/doc/$package/copyright")" "$root/usr/share/doc/pairway/$package.txt"
done
# The time of the last commit stands for all times. Not while it compiles: libraries would be made anew for every commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
integration/archive.sh "$root" "$name" "$architecture" "$out" \
  '{"Entrypoint":["/pairway"],"Env":["PATH=/"],"Labels":{"org.opencontainers.image.title":"pairway","org.opencontainers.image.version":"'"$version"'","org.opencontainers.image.licenses":"Apache-2.0"}}'
echo "$out: $name for $architecture, $(du -h "$out" | cut -f1); load it with 'ctr --namespace k8s.io images import $out'"
