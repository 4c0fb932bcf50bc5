package kernel

import (
	"context"

	"github.com/podnet/podnet/internal/model"
)

// Present returns those of pods whose links exist on the node. The others are
// being attached at this moment, or went with their namespaces.
func (k *Kernel) Present(_ context.Context, pods []model.Pod) ([]model.Pod, error) {
	p, err := newPass()
	if err != nil {
		return nil, err
	}
	defer p.close()
	links, err := p.allLinks()
	if err != nil {
		return nil, err
	}
	aliases := make(map[string]string, len(links))
	for _, l := range links {
		aliases[l.Attrs().Name] = l.Attrs().Alias
	}
	present := make([]model.Pod, 0, len(pods))
	for _, pod := range pods {
		if aliases[pod.HostLink] == podAlias(pod) {
			present = append(present, pod)
		}
	}
	return present, nil
}
