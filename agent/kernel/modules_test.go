package kernel

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"
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

func TestEveryMissingModuleIsNamed(t *testing.T) {
	for module, words := range map[string][]string{
		"nf_tables": {"add table"}, "nft_ct": {"ct state"}, "nft_fib_inet": {"fib "}, "nft_numgen": {"numgen"}, "nft_limit": {"limit rate"},
		"nft_chain_nat nft_nat nft_masq": {"type nat"}, "nft_nat": {"snat to"}, "nft_masq": {"masquerade"}, "nft_fib_inet nft_masq": {"fib ", "masquerade"},
	} {
		k := &Kernel{nft: &lacking{Fake: knftables.NewFake("", ""), words: words}}
		if missing := strings.Join(k.missingOfNFT(t.Context()), " "); missing != module {
			t.Errorf("missing %q, want %q", missing, module)
		}
	}
	if missing := (&Kernel{nft: &lacking{Fake: knftables.NewFake("", "")}}).missingOfNFT(t.Context()); len(missing) > 0 {
		t.Errorf("missing %v of a kernel that takes everything", missing)
	}
}
