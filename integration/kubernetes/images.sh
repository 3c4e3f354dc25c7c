#!/bin/bash
# Makes the images that a cluster under test needs from programs that are built already, into target/kubernetes/images.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
programs=${CARGO_TARGET_DIR:-$root/target}/kubernetes
registry=registry.k8s.io

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "images: no images for $(uname -m)" >&2; exit 1 ;;
esac

# One static program and what it is called. usage: image PROGRAM NAME:TAG CONFIG
image() {
  local out root
  out=$programs/images/$(basename "${2%:*}").tar
  [ ! -e "$out" ] || [ "$out" -ot "$1" ] || [ "$out" -ot "$here/images.sh" ] || return 0
  root=$(mktemp -d)
  mkdir -p "$root/tmp"
  chmod 1777 "$root/tmp"
  cp -L "$1" "$root/$(basename "$1")"
  chmod 0755 "$root" "$root/$(basename "$1")"
  "$here/../archive.sh" "$root" "$registry/$2" "$architecture" "$out" "$3"
  rm -r "$root"
}

image /bin/busybox pause:3.10.1 '{"Entrypoint":["/busybox","sleep","infinity"],"User":"65535:65535"}'
image "$programs/agnhost" e2e-test-images/agnhost:2.59 '{"Entrypoint":["/agnhost"],"Cmd":["pause"]}'
image "$programs/coredns" coredns/coredns:v1.13.1 '{"Entrypoint":["/coredns"]}'
