#!/usr/bin/env bash
# Usage: hack/verify.sh [CHECK...], by default all: generated modules lint shell named deploy
#
# Checks that generated files are as they would be generated now, that modules are tidy, that the linters are
# content, and that what scripts, workflows and pages name is there. It changes nothing in the tree, and runs every
# check even when one has failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

files() { # of the tree as it is now, committed or not, without what git ignores
	git ls-files -z --cached --others --exclude-standard -- "$@" |
		while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done
}

# Generates in a copy, so that a difference can be shown without making it.
check_generated() {
	local copy=$scratch/tree
	mkdir "$copy"
	files | tar --create --null --no-recursion --files-from=- | tar --extract --directory="$copy"
	git -C "$copy" init --quiet
	git -C "$copy" add --all
	make --no-print-directory -C "$copy" generate
	git -C "$copy" add --all --intent-to-add
	git -C "$copy" --no-pager diff --exit-code --stat --patch || {
		echo "Generated files are not what the sources say: run 'make generate' and commit what it changes."
		return 1
	}
}

check_modules() {
	local module failed=0
	while IFS= read -r -d '' module; do
		go -C "$(dirname "$module")" mod tidy -diff >"$scratch/tidy" || {
			sed '/^diff .*go\.sum$/,$d' "$scratch/tidy" # go.sum follows from go.mod, at length
			echo "$module is not tidy: run 'go mod tidy' in its folder."
			failed=1
		}
	done < <(files go.mod 'hack/tools/*/go.mod')
	return "$failed"
}

check_lint() { # formatting too: the formatters of .golangci.yml run as linters
	make --no-print-directory lint
}

check_shell() {
	hack/tools/need.sh shellcheck
	local file first scripts=()
	while IFS= read -r -d '' file; do
		IFS= read -r first <"$file" || true
		[[ $first =~ ^#!.*[/\ ](ba)?sh( |$) ]] && scripts+=("$file")
	done < <(files '*.sh' .ci hack)
	shellcheck --external-sources "${scripts[@]}"
}

check_named() { # paths, links, packages and targets, by those who name them
	go test -count=1 ./hack
}

# What users apply: the chart, and what a release has.
check_deploy() {
	local helm values
	helm=$(hack/cluster/cluster bin helm)
	for values in charts/podnet/ci/*.yaml; do
		"$helm" lint --strict charts/podnet --values "$values"
		"$helm" template podnet charts/podnet --namespace podnet-system --values "$values" >/dev/null
	done
	make --no-print-directory release-check
}

(($#)) || set -- generated modules lint shell named deploy
failed=()
for check in "$@"; do
	[[ $(type -t "check_$check") == function ]] || {
		echo "verify.sh: there is no check '$check'" >&2
		exit 2
	}
	echo "verify: $check"
	start=$SECONDS
	# A process of its own, because errexit does nothing in a function whose result is looked at.
	set +e
	(set -e && "check_$check" 2>&1)
	result=$?
	set -e
	((result == 0)) || failed+=("$check")
	echo "verify: $check: $([[ $result == 0 ]] && echo ok || echo FAILED) ($((SECONDS - start)) s)"
done
((${#failed[@]} == 0)) || {
	echo "verify: these checks failed, and say why above: ${failed[*]}" >&2
	exit 1
}
