#!/bin/bash
# Runs every test of the workspace and ends with the sums over all test programs:
#   N passed, N failed, N skipped
# Arguments go to `cargo test`. The whole output is kept in target/test.log.
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

# Builds the agent and the lab too: tests start them as programs of their own.
cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# The data plane once more on an older kernel, Debian's. Not the random changes: emulated, they take minutes.
if [ $# = 0 ] && [ "$(uname -m)" = x86_64 ]; then
  program=$PWD/$(sed -n 's/^ *Running tests\/kernel\/main\.rs (\(.*\))$/\1/p' "$log" | tail -n 1)
  echo "In a virtual machine: $program" | tee -a "$log"
  integration/vm/run.sh -t 900 -- "$program" --skip conform:: 2>&1 | tee -a "$log"
  machine=${PIPESTATUS[0]}
  [ "$machine" = 0 ] || status=$machine
fi

# "test result: ok. 24 passed; 0 failed; 1 ignored; 0 measured; ..."
sums=$(awk '
  /^test result: / { passed += $4; failed += $6; skipped += $8; programs++ }
  END { print passed + 0, failed + 0, skipped + 0, programs + 0 }' "$log")
read -r passed failed skipped programs <<<"$sums"
echo
sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: \1/p; s/^test \(.*\) \.\.\. ignored,* */skipped: \1: /p' "$log"
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
  echo "test: the build failed, or a test program or the virtual machine ended without a result: see $log" >&2
  failed=1
elif [ "$programs" = 0 ]; then
  echo "test: no test program has run" >&2
  failed=1 status=1
fi
close "$passed" "$failed" "$skipped"
exit "$status"
