package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/internal/model"
)

// addWait is how long an ADD waits for an address. It leaves the rest of
// requestTimeout to attach the pod.
const addWait = 30 * time.Second

// wait makes an ADD count as one that waits for the families in to, and no longer
// for those in from.
func (s *Server) wait(from, to [2]bool) {
	if s.config.Demand.Move(from, to) && s.config.Wanted != nil {
		s.config.Wanted()
	}
}

// reserve records a pod with its addresses. It waits for them where some are in
// quarantine, or where all are in use and the node may get another block. Meanwhile the pod
// has no address, of neither family. The caller holds the attachment's lock.
func (s *Server) reserve(ctx context.Context, pod model.Pod, offer attach.Offer) (model.Pod, error) {
	limit, cancel := context.WithTimeoutCause(ctx, addWait, errWaited)
	defer cancel()
	var waits [2]bool
	defer func() { s.wait(waits, [2]bool{}) }()
	yielded := map[Key]bool{}
	for {
		pod.Attachment, pod.MTU = offer.Attachment, offer.MTU
		// Asked for before it is tried: what is released in between counts.
		released := s.config.Book.released()
		reserved, err := s.config.Book.Reserve(pod, offer.Blocks)
		if err == nil {
			given, err := s.confirm(reserved)
			if err != nil {
				return model.Pod{}, err
			}
			if given {
				return reserved, nil
			}
			if offer, err = s.offer(); err != nil {
				return model.Pod{}, err
			}
			continue
		}
		var refused *RefusedError
		if errors.As(err, &refused) && !yielded[refused.holder] && s.isLost(ctx, refused.holder) {
			yielded[refused.holder] = true
			s.config.Book.yieldPorts(refused.holder)
			continue
		}
		if !errors.As(err, &refused) || !refused.noBlock && !refused.isFull() {
			return reserved, err
		}
		needed, comes := refused.Needs(offer)
		if !comes {
			return model.Pod{}, refused.because(func(family int) string { return offer.NotGrowing[family] })
		}
		s.wait(waits, needed)
		waits = needed
		select {
		case <-released:
		case <-refused.quarantineOver():
		case <-offer.Changed:
		case <-s.keys.wanted(pod.HostLink):
			return model.Pod{}, types.NewError(types.ErrTryAgainLater, "no address came before the runtime deleted the pod", "")
		case <-s.ending:
			return model.Pod{}, types.NewError(types.ErrTryAgainLater, "no address came before podnet's agent ended", "")
		case <-limit.Done():
			if !errors.Is(context.Cause(limit), errWaited) {
				return model.Pod{}, fmt.Errorf("wait for an address: %w", context.Cause(limit))
			}
			return model.Pod{}, refused.because(func(int) string { return errWaited.Error() })
		}
		if offer, err = s.offer(); err != nil {
			return model.Pod{}, err
		}
	}
}

// confirm reports whether a pod may have its addresses, and gives them back where a
// block of theirs gives none any more since they were taken. The agent counts a
// block's addresses after it has stopped giving them, so that an address which is
// confirmed has been counted, and no block goes to another node while a pod is about
// to have an address of it.
//
// Where they cannot be given back the error says so, and the pod counts as one that is
// being detached: the runtime's DEL, or another ADD, releases it first.
func (s *Server) confirm(pod model.Pod) (given bool, err error) {
	offer, err := s.offer()
	if err == nil && !slices.ContainsFunc(pod.Blocks, func(b netip.Prefix) bool { return !slices.Contains(offer.Blocks, b) }) {
		return true, nil
	}
	s.config.Book.leave(KeyOf(pod))
	if failed := s.config.Book.Release(KeyOf(pod)); failed != nil {
		return false, errors.Join(fmt.Errorf("give back addresses that the node no longer gives: %w", failed), err)
	}
	return false, nil
}

// errWaited is why an ADD got no address although the node may get another block.
var errWaited = fmt.Errorf("the node got no further block within %s", addWait)

// offer returns what new pods get, and an error as the specification has them
// where there is nothing.
func (s *Server) offer() (attach.Offer, error) {
	offer, err := s.config.Network.Offer()
	if err != nil {
		return attach.Offer{}, types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	return offer, nil
}

func (e *RefusedError) isFull() bool { return len(e.full[0]) > 0 || len(e.full[1]) > 0 }

// lack says which addresses the node lacks. Those that are in use take longer to come
// than those in quarantine.
func (e *RefusedError) lack() (sentence string) {
	for family, blocks := range e.full {
		switch {
		case len(blocks) == 0:
		case e.quarantined[family] == 0:
			return allInUse(blocks, onlyNewRanges)
		case sentence == "":
			sentence = allQuarantined(blocks)
		}
	}
	return sentence
}

// quarantineOver returns a channel that gets a value when an address of each family of
// which some are in quarantine may be given; nil where none is.
func (e *RefusedError) quarantineOver() <-chan time.Time {
	longest := max(e.quarantined[0], e.quarantined[1])
	if longest == 0 {
		return nil
	}
	return time.After(longest)
}

// Needs returns of which families the node lacks an address for a pod, and whether one
// of each may come: one is in quarantine, or the node may get another block.
func (e *RefusedError) Needs(offer attach.Offer) (needed [2]bool, come bool) {
	if e.noBlock {
		return offer.Growing, offer.Growing != [2]bool{}
	}
	come = true
	for family, blocks := range e.full {
		if len(blocks) > 0 {
			needed[family] = true
			come = come && (e.quarantined[family] > 0 || offer.Growing[family])
		}
	}
	return needed, come
}

// because returns the error with the reason for which the node has no further
// block of the first family of which one says so.
func (e *RefusedError) because(reason func(family int) string) error {
	for family, full := range e.full {
		if why := strings.TrimRight(reason(family), ". "); len(full) > 0 && e.quarantined[family] == 0 && why != "" {
			return &RefusedError{Sentence: allInUse(full, why), full: e.full, quarantined: e.quarantined}
		}
	}
	return e
}
