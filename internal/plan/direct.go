package plan

import (
	"fmt"

	"github.com/podnet/podnet/internal/model"
)

// direct is the way of packets that are routed as they are.
type direct struct{}

// leg implements way. Where a node's endpoint is not on the link the routers between have to know the
// pods' blocks.
func (direct) leg(v *view, p *peer, i int) (leg, model.Obstacle) {
	own, ok := v.host.Endpoint(families[i].is4)
	endpoint := p.endpoints[i]
	switch {
	case !ok:
		return leg{}, obstacle(model.NoEndpoint, "this node has no %s endpoint", families[i].name)
	case !endpoint.IsValid():
		return leg{}, obstacle(model.NoEndpoint, "node %s has no %s endpoint", p.node, families[i].name)
	case own.Addr == endpoint:
		return leg{}, obstacle(model.OwnEndpoint, "node %s claims this node's own endpoint %s", p.node, endpoint)
	}
	hops := v.underlay.lookup(endpoint)
	if len(hops) == 0 {
		return leg{}, obstacle(model.NoRoute, "this node has no route to the endpoint %s of node %s", endpoint, p.node)
	}
	l := leg{link: hops[0].Link, via: endpoint}
	if hops[0].Via.IsValid() {
		l.via = hops[0].Via
	}
	l.hop = l.via.String() + " by " + l.link
	return l, model.Obstacle{}
}

// addPeer implements way: routes are all that it takes.
func (direct) addPeer(*view, *model.State, *peer, model.PerFamily[leg]) {}

func obstacle(reason model.ObstacleReason, format string, args ...any) model.Obstacle {
	return model.Obstacle{Reason: reason, Text: fmt.Sprintf(format, args...)}
}
