package netns

import (
	"testing"

	"github.com/podnet/podnet/agent/diff/difftest"
	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/agent/nft/nftcontract"
	"github.com/podnet/podnet/test/netns/topology"
)

// What agent/nft's tests say of the doubles holds on a kernel.
func TestWriterOnAKernel(t *testing.T) {
	t.Parallel()
	nftcontract.Run(t, func(t *testing.T) (writer.Kernel, func(func() error) error) {
		conn, err := writer.Open()
		if err != nil {
			t.Fatal(err)
		}
		n := topology.NewNamespace(t, "tables")
		return conn, n.Try
	})
}

// What agent/diff's tests say of the double holds on a kernel.
func TestKernelKeepsTheContract(t *testing.T) {
	t.Parallel()
	difftest.Contract(t, func(t *testing.T) (difftest.Kernel, func(func() error) error) {
		_, k, _, err := rooms(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return k, topology.NewNamespace(t, "contract").Try
	})
}
