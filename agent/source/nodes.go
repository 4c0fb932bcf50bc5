package source

import (
	"context"
	"fmt"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

// Nodes returns the node of each block that there is. It fails before the caches are
// complete.
func (s *Source) Nodes(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	from := s.cache
	s.mu.Unlock()
	if from == nil {
		return nil, errUnheard
	}
	var subnets podnetv1alpha1.NodeSubnetList
	if err := from.List(ctx, &subnets); err != nil {
		return nil, fmt.Errorf("read NodeSubnets: %w", err)
	}
	nodes := make([]string, 0, len(subnets.Items))
	for i := range subnets.Items {
		nodes = append(nodes, subnets.Items[i].Spec.Node)
	}
	return nodes, nil
}
