#!/usr/bin/env bash
# Reports known vulnerabilities that podnet's code reaches. It is no part of `make verify`: the database
# is on the internet, and a commit that passed yesterday may fail today.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

govulncheck=$(hack/tools/build.sh govulncheck)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
result=0
"$govulncheck" ./... 2> >(tee "$log" >&2) || result=$?
if ((result != 0)) && grep -qE 'vuln\.go\.dev|fetching vulnerabilities' "$log"; then
	echo "vulncheck: the vulnerability database cannot be reached, so nothing was checked. \
Set GOVULNDB to a mirror of it, or run this where there is internet." >&2
fi
exit "$result"
