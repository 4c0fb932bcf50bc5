package apply

import (
	"context"
	"net/netip"

	"github.com/podnet/podnet/agent/diff"
	"github.com/podnet/podnet/agent/status"
	"github.com/podnet/podnet/internal/model"
)

// report hands over a report, with the addresses in use and wanted at this moment.
// They are counted after what new pods get was changed: an address that is
// taken as things were before is either counted, or given back by whoever took it
// (see cni.Server). The caller holds counting.
func (s *Applier) report(r status.Report) {
	if !r.Removed {
		held := make([]netip.Prefix, 0, len(r.Plan.Blocks))
		for _, b := range r.Plan.Blocks {
			held = append(held, b.CIDR)
		}
		r.Used, r.Waiting = s.cfg.Usage(held), s.cfg.Waiting()
	}
	s.reported = &r
	s.cfg.Report(r)
}

// Recount reports again how many addresses are in use and wanted, without a pass.
func (s *Applier) Recount() {
	s.counting.Lock()
	defer s.counting.Unlock()
	if s.reported != nil {
		s.report(*s.reported)
	}
}

// Attached implements attach.Kernel: it reports the pods again, without a pass.
func (s *Applier) Attached(pods []model.Pod) {
	s.counting.Lock()
	defer s.counting.Unlock()
	if s.reported != nil {
		s.reported.Pods = pods
		s.report(*s.reported)
	}
}

// Between implements attach.Kernel.
func (s *Applier) Between(f func(last *model.Cluster) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.states.Current(); st != nil {
		return f(&st.Cluster)
	}
	return f(nil)
}

// Exchange implements attach.Kernel.
func (s *Applier) Exchange(ctx context.Context, gone, come model.State) error {
	s.notes.remove(gone)
	s.notes.add(come)
	if err := s.cfg.Kernel.Execute(ctx, append(diff.Removals(gone), diff.Additions(come)...)); err != nil {
		s.notes.remove(come)
		// Something that the last pass made is gone: the next one makes it again.
		s.Trigger()
		return err
	}
	return nil
}
