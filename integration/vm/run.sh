#!/bin/bash
# Runs a command as root in a virtual machine with Debian's stock kernel: for what the kernel of this machine lacks
# (IP-in-IP above all) and as a second, older kernel.
#   integration/vm/run.sh [-c CPUS] [-m MIB] [-t SECONDS] [-k KERNEL_LOG] -- COMMAND [ARGUMENT...]
# The guest sees this machine's files, read-only below a tmpfs of its own, so a program built here runs there by the
# same path. Standard output and error of the command come back on standard output, its status is the status of this
# script; 125: there was no machine or no answer. Emulated (no /dev/kvm needed); x86-64 only. The kernel is fetched into target/vm.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
cpus=2 memory=1536 seconds=900 kernel_log=/dev/null
while getopts c:m:t:k: option; do
  case $option in
    c) cpus=$OPTARG ;;
    m) memory=$OPTARG ;;
    t) seconds=$OPTARG ;;
    k) kernel_log=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "usage: $0 [-c CPUS] [-m MIB] [-t SECONDS] [-k KERNEL_LOG] -- COMMAND..." >&2; exit 2; }
fail() {
  echo "vm: $*" >&2
  exit 125
}
[ "$(uname -m)" = x86_64 ] || fail "x86-64 only, this is $(uname -m)"

"$here/../setup.sh" qemu-system-x86 busybox-static cpio kmod || fail "packages are missing"

# The kernel: unpacked, never installed. Made under another name first: an interrupted run leaves no half of it.
cache=$root/target/vm
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$cache/kernel/modules.ready" ]; then
  package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
  if [ -z "$package" ]; then
    apt-get -qq update || true
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
  fi
  [ -n "$package" ] || fail "apt knows no linux-image-amd64"
  rm -rf "$cache/fetch" "$cache/kernel"
  mkdir "$cache/fetch"
  # apt's own download user may not enter the checkout.
  (cd "$cache/fetch" && apt-get -qq -o APT::Sandbox::User=root download "$package") || fail "can't fetch $package"
  dpkg -x "$cache/fetch/"*.deb "$cache/fetch/tree"
  version=$(ls "$cache/fetch/tree/lib/modules")
  depmod --basedir "$cache/fetch/tree" "$version"
  touch "$cache/fetch/tree/modules.ready"
  mv "$cache/fetch/tree" "$cache/kernel"
  rm -rf "$cache/fetch" "$cache"/initramfs
fi
version=$(ls "$cache/kernel/lib/modules")

# The first file system: busybox and the modules that reach the files of this machine.
if [ ! -e "$cache/initramfs" ] || [ "$here/init" -nt "$cache/initramfs" ]; then
  tree=$(mktemp -d)
  mkdir -p "$tree"/{bin,modules,proc,sys,dev,host,overlay,root}
  cp /bin/busybox "$tree/bin/"
  install -m 0755 "$here/init" "$tree/init"
  number=10
  for module in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
    modprobe --dirname "$cache/kernel" --set-version "$version" --show-depends "$module"
  done | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r file; do
    cp "$file" "$tree/modules/$((number++))-$(basename "$file")"
  done
  (cd "$tree" && find . | cpio --quiet -o -H newc) >"$cache/initramfs.new"
  mv "$cache/initramfs.new" "$cache/initramfs"
  rm -rf "$tree"
fi
flock -u 9

work=$(mktemp -d)
reader='' machine=''
cleanup() {
  [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
  [ -z "$reader" ] || kill "$reader" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# What runs there: a script beside the files, for a kernel's command line holds no more than a path.
{
  printf 'export PATH=%q HOME=%q\n' "$PATH" "$HOME"
  for name in CARGO_MANIFEST_DIR RUST_BACKTRACE RUST_TEST_THREADS RUST_LOG PAIRWAY_BIN; do
    [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
  done
  printf 'cd %q\n' "$PWD"
  printf '%q ' "$@"
  echo
} >"$work/command"

mkfifo "$work/output"
cat "$work/output" &
reader=$!
timeout --kill-after=5 "$seconds" qemu-system-x86_64 -machine q35 -cpu max -accel tcg,thread=multi,tb-size=512 \
  -smp "$cpus" -m "$memory" -nodefaults -display none -no-reboot \
  -kernel "$cache/kernel/boot/vmlinuz-$version" -initrd "$cache/initramfs" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on vm_command=$work/command vm_modules=$cache/kernel/lib/modules" \
  -serial "file:$kernel_log" \
  -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host \
  -device virtio-rng-pci \
  -device virtio-serial-pci -chardev "file,id=output,path=$work/output" -device virtserialport,chardev=output,nr=1 \
  -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,nr=2 </dev/null &
machine=$!
status=0
wait "$machine" || status=$?
machine=''
# The reader ends with its pipe; it never opened if the machine did not start.
for _ in $(seq 40); do
  kill -0 "$reader" 2>/dev/null || break
  sleep 0.05
done
[ -s "$work/status" ] || fail "no answer from the machine (qemu's status $status; 124 means more than $seconds s)"
exit "$(head -n 1 "$work/status")"
