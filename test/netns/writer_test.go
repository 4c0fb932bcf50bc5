package netns

import (
	"testing"

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
