package nft

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/podnet/podnet/internal/nft"
)

func TestElementsAsNFTListsThem(t *testing.T) {
	for listed, want := range map[string][]string{
		`"192.0.2.1"`: {"192.0.2.1"},
		`8080`:        {"8080"},
		`{"prefix": {"addr": "10.244.0.0", "len": 16}}`:                         {"10.244.0.0/16"},
		`{"range": ["192.0.2.1", "192.0.2.9"]}`:                                 {"192.0.2.1-192.0.2.9"},
		`{"concat": ["pod1", "02:00:00:00:00:01", "10.244.0.2"]}`:               {"pod1", "02:00:00:00:00:01", "10.244.0.2"},
		`{"concat": ["tcp", 80]}`:                                               {"tcp", "80"},
		`{"concat": [{"prefix": {"addr": "fd00::", "len": 8}}, 53]}`:            {"fd00::/8", "53"},
		`{"elem": {"val": "192.0.2.1", "counter": {"packets": 0, "bytes": 0}}}`: {"192.0.2.1"},
		`{"drop": null}`:                  {"drop"},
		`{"jump": {"target": "ingress"}}`: {"jump ingress"},
	} {
		got, err := parts(json.RawMessage(listed))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q (%v), want %q", listed, got, err, want)
		}
	}
	for _, listed := range []string{`{"a": null, "b": null}`, `[1]`, `{"a": 1}`} {
		if got, err := parts(json.RawMessage(listed)); err == nil {
			t.Errorf("%s: %q, want an error", listed, got)
		}
	}
}

func TestTableAsNFTListsIt(t *testing.T) {
	var listing struct {
		Objects []object `json:"nftables"`
	}
	text := `{"nftables": [
		{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
		{"table": {"family": "inet", "name": "podnet", "handle": 1}},
		{"set": {"family": "inet", "name": "ranges4", "table": "podnet", "type": "ipv4_addr", "handle": 2, "flags": ["interval"],
			"elem": [{"prefix": {"addr": "10.244.0.0", "len": 16}}]}},
		{"map": {"family": "inet", "name": "hostports4", "table": "podnet", "type": ["inet_proto", "inet_service"], "handle": 3,
			"map": ["ipv4_addr", "inet_service"], "elem": [[{"concat": ["tcp", 80]}, {"concat": ["10.244.0.2", 8080]}]]}},
		{"chain": {"family": "inet", "table": "podnet", "name": "raw", "handle": 4, "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}},
		{"rule": {"family": "inet", "table": "podnet", "chain": "raw", "handle": 5, "comment": "cafe", "expr": [{"drop": null}]}},
		{"rule": {"family": "inet", "table": "podnet", "chain": "raw", "handle": 6, "expr": []}}]}`
	if err := json.Unmarshal([]byte(text), &listing); err != nil {
		t.Fatal(err)
	}
	got, err := tableOf("inet", "podnet", listing.Objects)
	if err != nil {
		t.Fatal(err)
	}
	want := nft.Table{
		Family: "inet", Name: "podnet",
		Sets: []nft.Set{
			{Name: "ranges4", Key: "ipv4_addr", Interval: true, Elements: []nft.Element{{Key: []string{"10.244.0.0/16"}}}},
			{Name: "hostports4", Key: "inet_proto . inet_service", Value: "ipv4_addr . inet_service",
				Elements: []nft.Element{{Key: []string{"tcp", "80"}, Value: []string{"10.244.0.2", "8080"}}}},
		},
		Chains: []nft.Chain{{Name: "raw", Base: nft.Base{Type: nft.TypeFilter, Hook: nft.Prerouting, Priority: nft.Priority{Offset: -300}},
			Rules: []nft.Rule{{Fingerprint: "cafe"}, {}}}},
	}
	if a, b := asJSON(t, got), asJSON(t, want); a != b {
		t.Errorf("got %s\nwant %s", a, b)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
