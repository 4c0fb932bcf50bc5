package host

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"

	"github.com/podnet/podnet/agent/nft"
)

// lacking is an nftables that refuses whatever holds one of some words.
type lacking struct {
	*knftables.Fake
	words []string
}

func (l *lacking) Check(_ context.Context, tx *knftables.Transaction) error {
	for _, w := range l.words {
		if strings.Contains(tx.String(), w) {
			return errors.New("Could not process rule: No such file or directory")
		}
	}
	return nil
}

func lackingHost(words ...string) *Host {
	return New(Config{NFT: nft.NewConn(&lacking{Fake: knftables.NewFake("", ""), words: words})})
}

func TestEveryMissingModuleIsNamed(t *testing.T) {
	for module, words := range map[string][]string{
		"nf_tables": {"add table"}, "nft_ct": {"ct state"}, "nft_fib_inet": {"fib "}, "nft_numgen": {"numgen"}, "nft_limit": {"limit rate"},
		"nft_chain_nat nft_nat nft_masq": {"type nat"}, "nft_nat": {"snat to"}, "nft_masq": {"masquerade"}, "nft_fib_inet nft_masq": {"fib ", "masquerade"},
	} {
		h := lackingHost(words...)
		if missing := strings.Join(h.missingOfNFT(t.Context()), " "); missing != module {
			t.Errorf("missing %q, want %q", missing, module)
		}
	}
	if missing := lackingHost().missingOfNFT(t.Context()); len(missing) > 0 {
		t.Errorf("missing %v of a kernel that takes everything", missing)
	}
}
