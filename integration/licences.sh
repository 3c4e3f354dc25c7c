#!/bin/bash
# Prints the licence texts of all crates that are linked into the agent, each text once. usage: integration/licences.sh TARGET
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
target=$1
# What the agent depends on, without what only builds or tests it.
linked=$(cargo tree --locked --package node-agent --target "$target" --edges normal --prefix none --format '{p}' |
  sed 's/ (.*//; s/ v/ /' | sort -u)

echo "Pairway contains Rust's standard library (MIT or Apache-2.0, https://github.com/rust-lang/rust), the C library (libc6.txt beside"
echo "this file; its sources are Debian's package glibc), GCC's runtime (libgcc-s1.txt), and these libraries."
declare -A first
cargo metadata --locked --format-version 1 --filter-platform "$target" |
  jq -r '.packages[] | select(.source != null)
    | [.name, .version, (.license // "see its files"), (.repository // ""), .manifest_path] | @tsv' |
  sort |
  while IFS=$'\t' read -r name version licence repository manifest; do
    grep -qxF "$name $version" <<<"$linked" || continue
    printf '\n=== %s %s\nlicence: %s\n%s\n' "$name" "$version" "$licence" "$repository"
    for file in "$(dirname "$manifest")"/*; do
      case ${file##*/} in
        [Ll][Ii][Cc][Ee][Nn][CcSs][Ee]* | COPYING* | NOTICE* | UNLICENSE*) [ -f "$file" ] || continue ;;
        *) continue ;;
      esac
      sum=$(sha256sum <"$file")
      if [ -n "${first[$sum]:-}" ]; then
        printf '%s: as that of %s\n' "${file##*/}" "${first[$sum]}"
      else
        first[$sum]="$name $version, ${file##*/}"
        printf -- '\n--- %s\n' "${file##*/}"
        cat "$file"
      fi
    done
  done
