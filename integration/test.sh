#!/bin/bash
# Runs every test of the workspace and ends with the sums over all test programs:
#   N passed, N failed, N skipped
# What is ignored here and runs in the virtual machine is not skipped; with arguments, which go to `cargo test`, there is
# no virtual machine. The whole output is kept in target/test.log.
# With CORE=1 the tests that need etcd, kube-apiserver or a whole cluster are left out; `make kubernetes lab-cluster-image`
# makes these otherwise.
# Needs root and the packages of integration/setup.sh.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
log=target/test.log
mkdir -p target

# The closing line, which is also kept in target/counts.
close() {
  echo "$1 passed, $2 failed, $3 skipped" | tee target/counts
}

# Many tests wait for timers of protocols rather than compute: more of them than there are processors run at once.
threads=$(($(nproc) * 2))
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((threads > 4 ? threads : 4))}

leave_out=()
if [ -n "${CORE:-}" ]; then
  leave_out=(--skip store::tests::of_etcd:: --skip store::tests::of_kubernetes::
    --skip store::etcd::tests:: --skip store::kubernetes::tests:: --skip kubernetes::chart:: --skip kubernetes::release::)
fi

# Builds the agent and the lab too: tests start them as programs of their own.
if [ ${#leave_out[@]} != 0 ] && [ $# = 0 ]; then
  cargo test --locked --workspace --no-fail-fast -- "${leave_out[@]}" 2>&1 | tee "$log"
else
  cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
fi
status=${PIPESTATUS[0]}

# Runs a test program in a virtual machine with an older kernel, Debian's, which has what this one may lack.
in_machine() {
  echo "In a virtual machine: $*" | tee -a "$log"
  PAIRWAY_BIN=$PWD/target/debug/pairway integration/vm/run.sh -t 1800 -- "$@" --include-ignored 2>&1 | tee -a "$log"
  local machine=${PIPESTATUS[0]}
  [ "$machine" = 0 ] || status=$machine
}

# Runs tests that are ignored unless they are asked for, on this kernel.
on_this_kernel() {
  echo "On this kernel: $*" | tee -a "$log"
  PAIRWAY_BIN=$PWD/target/debug/pairway "$@" --include-ignored 2>&1 | tee -a "$log"
  local here=${PIPESTATUS[0]}
  [ "$here" = 0 ] || status=$here
}

# Whether this kernel has a kind of tunnel, or finds the module.
has_tunnel() {
  unshare --net ip link add probe0 type "$1" local 192.0.2.1 2>/dev/null
}

# The program of a test target, as cargo has named it.
program() {
  echo "$PWD/$(sed -n "s/^ *Running tests\\/$1\\/main\\.rs (\\(.*\\))\$/\\1/p" "$log" | tail -n 1)"
}

# A whole cluster, alone: it takes all processors, and other tests count packets.
if [ $# = 0 ] && [ -z "${CORE:-}" ]; then
  on_this_kernel "$(program it)" kubernetes::a_whole_cluster
fi

# What a kernel without IP-in-IP does is tried where it lacks it.
if [ $# = 0 ] && ! has_tunnel ipip && ! has_tunnel sit; then
  on_this_kernel "$(program it)" without_module::
fi

# The data plane once more, without the long random changes: emulated, they take minutes. And the labs that need IP-in-IP,
# one at a time.
if [ $# = 0 ] && [ "$(uname -m)" = x86_64 ]; then
  in_machine "$(program kernel)" --skip conform::
  in_machine "$(program it)" ipip:: --test-threads 1
fi

# "test result: ok. 24 passed; 0 failed; 1 ignored; 0 measured; ..."
sums=$(awk '
  /^test result: / { passed += $4; failed += $6; programs++ }
  END { print passed + 0, failed + 0, programs + 0 }' "$log")
read -r passed failed programs <<<"$sums"
# What was ignored wherever its program ran, with the reason.
skips=$(awk '
  /^ *Running .*\(.*\)$/ || /^In a virtual machine: / || /^On this kernel: / || /^ *Doc-tests / {
    program = /^In a/ ? $5 : /^On this/ ? $4 : $NF
    gsub(/.*\/|[()]/, "", program)
  }
  /^test .* \.\.\. ignored/ { name = $2; sub(/^.* \.\.\. ignored,? */, ""); ignored[program " " name] = name ": " $0 }
  /^test .* \.\.\. (ok|FAILED)$/ { ran[program " " $2] }
  END { for (test in ignored) if (!(test in ran)) print "skipped: " ignored[test] }' "$log")
skipped=$(grep -c . <<<"$skips")
echo
sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: \1/p' "$log"
[ -z "$skips" ] || echo "$skips"
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
  echo "test: the build failed, or a test program or the virtual machine ended without a result: see $log" >&2
  failed=1
elif [ "$programs" = 0 ]; then
  echo "test: no test program has run" >&2
  failed=1 status=1
fi
close "$passed" "$failed" "$skipped"
exit "$status"
