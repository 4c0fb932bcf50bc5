package diff_test

import (
	"testing"

	"github.com/podnet/podnet/agent/diff/difftest"
	"github.com/podnet/podnet/internal/model"
)

func TestFakeIsAKernel(t *testing.T) {
	difftest.Contract(t, func(*testing.T) (difftest.Kernel, func(func() error) error) {
		return difftest.New(model.State{}), func(f func() error) error { return f() }
	})
}
