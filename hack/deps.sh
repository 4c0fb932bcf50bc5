#!/usr/bin/env bash
# Usage: hack/deps.sh
#
# Installs the Debian packages that `make verify` and `make test` need and this machine lacks. Where it cannot, it
# names them and fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

hack/cluster/cluster deps
missing=()
for package in gcc libc6-dev shellcheck; do
	dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
((${#missing[@]})) || exit 0
((EUID == 0)) || {
	echo "deps.sh: packages are missing, and only root can install them: apt-get install ${missing[*]}" >&2
	exit 1
}
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}"
