package firstnetwork

import (
	"slices"
	"testing"
)

const liveSpec = `{
  "ranges": [
    {"cidr": "10.248.0.0/16", "state": "Active"},
    {"cidr": "fd00:10:248::/48", "state": "Draining", "nodeSelector": {"matchLabels": {"rack": "a"}}}
  ],
  "attachment": "PointToPoint", "routeMode": "Auto", "overlay": {"encapsulation": "VXLAN", "vni": 16777215, "port": 4789},
  "mtu": 0, "masquerade": {"enabled": true, "excludeCIDRs": ["192.168.0.0/16"]}
}`

func TestDifferencesNameWhatTheValuesSetOtherwise(t *testing.T) {
	ranges := `"ranges": [{"cidr": "fd00:10:248::/48"}, {"cidr": "10.248.0.0/16"}]`
	for name, test := range map[string]struct {
		wanted string
		want   []string
	}{
		"what is unset belongs to the network, and the order of ranges says nothing": {"{" + ranges + "}", nil},
		"alike": {
			`{` + ranges + `, "routeMode": "Auto", "mtu": 0, "overlay": {"vni": 16777215}, "masquerade": {"excludeCIDRs": ["192.168.0.0/16"]}}`, nil,
		},
		"another range": {`{"ranges": [{"cidr": "10.244.0.0/16"}]}`, []string{
			"the values have the range 10.244.0.0/16, and the network has not",
			"the network has the range 10.248.0.0/16, and the values have not",
			"the network has the range fd00:10:248::/48, and the values have not",
		}},
		"another state and selector of a range": {
			`{"ranges": [{"cidr": "10.248.0.0/16", "nodeSelector": {"matchLabels": {"rack": "b"}}}, {"cidr": "fd00:10:248::/48", "state": "Active"}]}`,
			[]string{
				"range 10.248.0.0/16: nodeSelector.matchLabels.rack is b in the values, and unset in the network",
				"range fd00:10:248::/48: state is Active in the values, and Draining in the network",
			},
		},
		"fields, and fields of fields": {
			`{` + ranges + `, "routeMode": "Routed", "mtu": 1400, "overlay": {"vni": 12}, "masquerade": {"enabled": false, "excludeCIDRs": []},
			  "nodeBlocks": {"max": 4}}`,
			[]string{
				`network.masquerade.enabled is false in the values, and true in the network`,
				`network.masquerade.excludeCIDRs is [] in the values, and ["192.168.0.0/16"] in the network`,
				`network.mtu is 1400 in the values, and 0 in the network`,
				`network.nodeBlocks.max is 4 in the values, and unset in the network`,
				`network.overlay.vni is 12 in the values, and 16777215 in the network`,
				`network.routeMode is Routed in the values, and Auto in the network`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := differences([]byte(test.wanted), []byte(liveSpec))
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v: %q, want %q", err, got, test.want)
			}
		})
	}
}
