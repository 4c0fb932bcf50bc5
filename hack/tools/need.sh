#!/usr/bin/env bash
# Usage: hack/tools/need.sh COMMAND...
#
# Fails with one sentence for each command that is missing, naming the Debian package that has it.
set -euo pipefail

missing=()
for command in "$@"; do
	command -v "$command" >/dev/null && continue
	case $command in
	gcc) package="gcc libc6-dev" ;;
	nft) package=nftables ;;
	*) package=$command ;;
	esac
	echo "need.sh: '$command' is missing. On Debian: apt-get install $package" >&2
	missing+=("$command")
done
((${#missing[@]} == 0))
