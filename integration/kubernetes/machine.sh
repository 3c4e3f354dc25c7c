#!/bin/bash
# A machine of a cluster: containerd, kubelet and kube-proxy in mount, PID and cgroup namespaces of their own, inside of a
# lab's node. Killing it is a power cut; what is on the node's disks stays. Run by `lab cluster` in the node:
#   machine.sh FOLDER CGROUP      FOLDER: this machine's kubelet.yaml, kube-proxy.yaml, *.kubeconfig, flags; its logs
# environment: KUBELET, KUBE_PROXY (programs), IMAGES (a folder of archives that containerd imports), AGENT_IMAGE (one more,
# if it is there)
set -euo pipefail
folder=$1 cgroup=$2

# The hierarchies of control groups, "cpu,cpuacct" or "name=systemd" for version 1 and "unified" for version 2.
hierarchies() {
  sed -n 's/^[0-9]*:\(..*\):.*/\1/p; s/^0::.*/unified/p' /proc/self/cgroup
}

# Mounts all hierarchies below a folder.
mount_hierarchies() {
  mkdir -p "$1"
  if [ "$(hierarchies)" = unified ]; then
    mount -t cgroup2 cgroup2 "$1"
    return
  fi
  mount -t tmpfs -o mode=755 cgroup "$1"
  for hierarchy in $(hierarchies); do
    at=$1/${hierarchy#name=}
    mkdir "$at"
    case $hierarchy in
      unified) mount -t cgroup2 cgroup2 "$at" ;;
      name=*) mount -t cgroup -o "none,$hierarchy" cgroup "$at" ;;
      *) mount -t cgroup -o "$hierarchy" cgroup "$at" ;;
    esac
  done
}

# A control group of version 1 has no processors and memory nodes before somebody gives it some.
fill_cpuset() {
  for file in cpuset.cpus cpuset.mems; do
    [ ! -e "$1/$file" ] || cat "$1/../$file" >"$1/$file"
  done
  [ ! -e "$1/cgroup.clone_children" ] || echo 1 >"$1/cgroup.clone_children"
}

# First in the node: into control groups of our own, so that the namespace of control groups begins there.
if [ "${MACHINE:-}" != inside ]; then
  [ "$(hierarchies)" != unified ] || {
    echo "machine: this kernel has control groups of version 2 alone, for which machines of a cluster are not made yet;" \
      "boot with systemd.unified_cgroup_hierarchy=0" >&2
    exit 1
  }
  mount_hierarchies /run/cgroup
  for at in /run/cgroup/*/; do
    mkdir -p "$at$cgroup"
    fill_cpuset "$at${cgroup%%/*}"
    fill_cpuset "$at$cgroup"
    echo $$ >"$at$cgroup/cgroup.procs"
  done
  umount --recursive /run/cgroup
  MACHINE=inside exec unshare --mount --pid --cgroup --fork --kill-child --mount-proc --propagation private "$0" "$@"
fi

mount_hierarchies /sys/fs/cgroup
# What does not outlive a power cut.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
# Volumes of pods are mounted by kubelet and seen by others.
mount --make-rshared /

for disk in containerd kubelet; do
  at=/var/lib/$disk
  mountpoint -q "$at" || { echo "machine: $at has to be a mount of the node" >&2; exit 1; }
done
mkdir -p /etc/cni/net.d /var/log/pods /var/log/containers
cat >/run/containerd.toml <<TOML
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10.1"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
TOML

# Runs a program, and runs it again when it ends, as an init system would.
keep() {
  local name=$1
  shift
  while :; do
    "$@" >>"$folder/$name.log" 2>&1 || true
    sleep 1
  done &
}

keep containerd containerd --config /run/containerd.toml
for _ in $(seq 300); do
  ctr version >/dev/null 2>&1 && break
  sleep 0.1
done
for image in "$IMAGES"/*.tar "$AGENT_IMAGE"; do
  [ -e "$image" ] || continue
  # Its name and its bytes: a rebuilt image is imported again.
  mark=/var/lib/containerd/.$(stat -c '%n-%Y-%s' "$image" | tr / -)
  [ -e "$mark" ] || { ctr --namespace k8s.io images import "$image" >>"$folder/images.log" 2>&1 && touch "$mark"; }
done
# Each flag a line.
mapfile -t flags <"$folder/kubelet.flags"
keep kubelet "$KUBELET" --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubelet.kubeconfig" "${flags[@]}"
keep kube-proxy "$KUBE_PROXY" --config "$folder/kube-proxy.yaml"
# As the first process of its namespace it reaps what loses its parent.
trap 'exit 0' TERM
while :; do
  wait -n || true
  sleep 1
done
