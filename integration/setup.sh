#!/bin/bash
# Installs the Debian packages of integration/packages.txt, and those named as arguments, if they are missing.
# Silent when there is nothing to do.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
own=$here/setup.sh

packages=$(sed 's/#.*//' "$here/packages.txt")
missing=()
# Names of packages are single words.
for package in $packages "$@"; do
  dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done

if [ "$(id -u)" != 0 ]; then
  echo "setup: the lab makes network namespaces, which needs root: sudo env \"PATH=\$PATH\" make ..." >&2
  [ ${#missing[@]} = 0 ] || echo "setup: missing Debian packages: ${missing[*]}; as root: $own" >&2
  exit 1
fi
[ ${#missing[@]} = 0 ] && exit 0
command -v apt-get >/dev/null || { echo "setup: no apt-get here; install by hand: ${missing[*]}" >&2; exit 1; }

echo "setup: installing ${missing[*]}" >&2
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
cleanup() {
  rm -f "$log"
  [ -z "$made_policy" ] || rm -f "$policy"
}
trap cleanup EXIT

# A routing daemon that an installation starts by itself would take port 179 and the kernel's routes.
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 0755 "$policy"
  made_policy=yes
fi

apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$log" 2>&1
}
# Package lists may be absent, or too old for what the mirror still has. An update that fails for somebody else's
# repository may have brought what is needed here.
install=(install --yes --no-install-recommends "${missing[@]}")
if ! apt "${install[@]}" && ! { apt update || true; apt "${install[@]}"; }; then
  tail -n 20 "$log" >&2
  echo "setup: these packages could not be installed: ${missing[*]}" >&2
  exit 1
fi
# Nor at the next boot, unless somebody had it before.
for package in "${missing[@]}"; do
  if [ "$package" = bird2 ] && command -v systemctl >/dev/null; then
    systemctl disable --quiet bird.service >"$log" 2>&1 || echo "setup: see that bird.service stays off" >&2
  fi
done
