#!/bin/bash
# The layers of ARCHITECTURE.md, checked: who may depend on whom, and that the pure parts know no socket.
# `deny.toml` holds the netlink and the store crates to one crate each.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

wrong=0
complain() {
  echo "layers: $1" >&2
  wrong=1
}

# Names of all packages that a crate is built from, itself left out; further arguments go to cargo.
tree() {
  local crate=$1
  shift
  cargo tree --locked --quiet --package "$crate" --edges normal --prefix none "$@" | sed 1d | cut -d' ' -f1 | sort -u
}

io='^(tokio|tokio-util|mio|socket2|netlink-.*|rtnetlink|nix|libc)$'
for crate in bgp vxlan; do
  # The same question with the sockets in must find them, or the pattern would prove nothing.
  with_io=$(tree "$crate" --all-features)
  grep -qE "$io" <<<"$with_io" || complain "$crate with all features has none of the packages that this looks for"
  pure=$(tree "$crate" --no-default-features)
  if found=$(grep -E "$io" <<<"$pure"); then
    complain "$crate without features is built from $(tr '\n' ' ' <<<"$found")"
  fi
done

ours='^(bgp|vxlan|config|node-agent|integration)$'
for crate in bgp vxlan config; do
  packages=$(tree "$crate" --all-features)
  if found=$(grep -E "$ours" <<<"$packages"); then
    complain "$crate depends on $(tr '\n' ' ' <<<"$found"): it must know none of our other crates"
  fi
done
agent=$(tree node-agent)
stores='^(kube|kube-client|k8s-openapi|tonic|prost)$'
grep -qE "$stores" <<<"$agent" || complain "node-agent has none of the crates for Kubernetes and etcd: does this script see the tree?"
for crate in bgp vxlan config; do
  if found=$(tree "$crate" --all-features | grep -E "$stores"); then
    complain "$crate is built from $(tr '\n' ' ' <<<"$found"): only the agent knows Kubernetes and etcd"
  fi
done
for crate in bgp vxlan config; do
  grep -qx "$crate" <<<"$agent" || complain "node-agent does not depend on $crate: does this script see the tree?"
done
if grep -qx integration <<<"$agent"; then
  complain "node-agent depends on integration"
fi

# The top level is fixed.
for entry in $(git ls-files | cut -d/ -f1 | sort -u); do
  case $entry in
    bgp | vxlan | node-agent | config | integration | docs | .ci) ;;
    Cargo.toml | Cargo.lock | Makefile | README.md | ARCHITECTURE.md | CHANGELOG.md | SECURITY.md | LICENSE) ;;
    clippy.toml | deny.toml | rustfmt.toml | .gitignore | .gitattributes | .dockerignore) ;;
    *) complain "$entry does not belong to the top level" ;;
  esac
done
exit "$wrong"
