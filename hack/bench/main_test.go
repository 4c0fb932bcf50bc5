package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestVariantsStandSideBySide(t *testing.T) {
	input := `goos: linux
pkg: github.com/podnet/podnet/internal/ipam
cpu: some processor
BenchmarkBlocks/taken=10-2     8971    930.04 ns/allocation    404.7 ns/release
BenchmarkBlocks/taken=1000-2   10000   5490.4 ns/allocation    35.67 ns/release
PASS
ok  	github.com/podnet/podnet/internal/ipam	7.172s
pkg: github.com/podnet/podnet/internal/plan
BenchmarkBuild-2   100   6798865 ns/op   12 B/op
`
	want := `
| Blocks (internal/ipam) | taken=10 | taken=1000 |
|------------------------|---------:|-----------:|
| ns/allocation          |      930 |       5490 |
| ns/release             |      405 |       35.7 |

| Build (internal/plan) |         |
|-----------------------|--------:|
| ns/op                 | 6798865 |
| B/op                  |      12 |
`
	var progress, out bytes.Buffer
	if err := run(strings.NewReader(input), &progress, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
	if progress.String() != input {
		t.Errorf("what was read did not go on: %q", progress.String())
	}
}
