#!/bin/bash
# Builds the programs of a Kubernetes cluster from their Go modules, which go.mod pins, into target/cluster.
# usage: programs.sh [PROGRAM...]   without names: all of them. What is there already is left alone.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=$(readlink -f "$here/../..")/target/cluster
version=v1.35.4 minor=35
all=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy coredns agnhost)
[ $# -gt 0 ] || set -- "${all[@]}"

package() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    coredns) echo ./coredns ;;
    agnhost) echo k8s.io/kubernetes/test/images/agnhost ;;
    kube*) echo "k8s.io/kubernetes/cmd/$1" ;;
    *) echo "programs: no program $1; there are ${all[*]}" >&2; return 1 ;;
  esac
}

command -v go >/dev/null || { echo "programs: Go 1.26 or newer is missing: https://go.dev/dl" >&2; exit 1; }
mkdir -p "$out"
base=k8s.io/component-base/version
flags="-s -w -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=$minor"
cd "$here"
for program in "$@"; do
  package=$(package "$program")
  # A program that was built from other versions is built anew.
  stamp=$(sha256sum go.mod programs.sh | sha256sum | cut -d' ' -f1)
  [ "$(cat "$out/.$program" 2>/dev/null)" != "$stamp" ] || [ ! -x "$out/$program" ] || continue
  echo "programs: building $program" >&2
  CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$out/$program" "$package"
  echo "$stamp" >"$out/.$program"
done
