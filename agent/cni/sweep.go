package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/internal/model"
)

// Runtime is the node's container runtime.
type Runtime interface {
	// Sandboxes returns the IDs of all sandboxes that the runtime knows, whatever
	// their state.
	Sandboxes(ctx context.Context) (map[string]bool, error)
	// IdleAmong returns those of the network namespaces at some paths that no
	// process is in, and an error where that is not certain of all the others.
	IdleAmong(ctx context.Context, netns []string) (map[string]bool, error)
}

const (
	// leastAge is the least age of a record whose pod the runtime may have lost:
	// runtimes list a sandbox only when all of it is made, well after ADD.
	leastAge = 5 * time.Minute
	// doubt is the least time between two looks that both miss a sandbox: a runtime
	// that has just started may not list all yet.
	doubt = time.Minute
	// sweepTimeout bounds a sweep. What it did not come to, the next one does.
	sweepTimeout = time.Minute
)

// leaks are the attachments whose sandboxes the runtime does not know.
type leaks struct {
	// mu is held by the sweep that goes on, and by nothing that anybody waits for.
	mu sync.Mutex
	// missing is when each was first missed, by what was recorded when. An
	// attachment that is recreated is another.
	missing map[attachment]time.Time
	// failure is why the runtime could not be asked; empty where it could.
	failure string
}

// attachment is one stay of a pod on the node.
type attachment struct {
	key   Key
	since time.Time
}

// Sweep detaches the pods that are gone without a word of the runtime, as after a
// crash or a removal by hand. In case of doubt a pod stays: an address that leaks
// costs less than one that two pods have.
//
// A pod is gone when the file of its network namespace and its link are. It is also
// gone when the runtime does not know its sandbox, in two looks, and no process is
// in its namespace.
//
// Other verbs go on meanwhile: they wait for a sweep at most as long as the kernel
// takes for one pod, and never for the runtime. A sweep ends within about a minute;
// where one goes on, another does nothing.
func (s *Server) Sweep(ctx context.Context) error {
	if !s.leaks.mu.TryLock() {
		return nil
	}
	defer s.leaks.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	// Asked before any pod is locked: a runtime may hang.
	dead := s.dead(ctx)
	return s.collect(ctx, func(ctx context.Context, pod model.Pod) (string, error) {
		if pod.Netns == "" {
			return "", nil
		}
		if _, err := os.Stat(pod.Netns); errors.Is(err, fs.ErrNotExist) {
			// The kernel is asked too: a namespace that the agent's image does not show
			// may be there all the same. Its end of the link goes with the namespace.
			present, err := s.config.Present(ctx, []model.Pod{pod})
			if err != nil || len(present) > 0 {
				return "", err
			}
			return "its network namespace and its link are gone", nil
		}
		since, _ := s.config.Book.recordedSince(KeyOf(pod))
		if !dead[attachment{KeyOf(pod), since}] {
			return "", nil
		}
		return "the runtime does not know its sandbox, and no process is in its network namespace", nil
	})
}

// dead returns the attachments whose sandboxes the runtime did not know in two looks,
// and whose network namespaces no process is in.
func (s *Server) dead(ctx context.Context) map[attachment]bool {
	lost := s.lost(ctx)
	if len(lost) == 0 {
		return nil
	}
	// A pod that the runtime does not know gets no process any more, so that one look
	// at the processes is enough for all.
	idle, err := s.config.Runtime.IdleAmong(ctx, slices.Sorted(maps.Values(lost)))
	if err != nil {
		log.FromContext(ctx).V(1).Info("cannot tell whether some pods that the runtime does not know are alive", "reason", err.Error())
	}
	dead := map[attachment]bool{}
	for a, netns := range lost {
		dead[a] = idle[netns]
	}
	return dead
}

// lost returns the attachments whose sandboxes the runtime did not know in two looks,
// with the paths of their network namespaces.
func (s *Server) lost(ctx context.Context) map[attachment]string {
	pods := s.config.Book.Recorded()
	if s.config.Runtime == nil || len(pods) == 0 {
		return nil
	}
	sandboxes, err := s.config.Runtime.Sandboxes(ctx)
	before := s.leaks.missing
	s.leaks.missing = map[attachment]time.Time{}
	if err != nil {
		// Only once each: some nodes' runtimes never answer.
		if err.Error() != s.leaks.failure {
			log.FromContext(ctx).Info("cannot ask the container runtime which pods there are", "reason", err.Error())
		}
		s.leaks.failure = err.Error()
		return nil
	}
	s.leaks.failure = ""
	now := time.Now()
	witnessed := false
	lost := map[attachment]string{}
	for _, pod := range pods {
		if sandboxes[pod.ContainerID] {
			witnessed = true
			continue
		}
		since, ok := s.config.Book.recordedSince(KeyOf(pod))
		// What is no pod of Kubernetes is of others, such as `ctr run --cni`.
		if !ok || pod.Name == "" || now.Sub(since) < leastAge {
			continue
		}
		a := attachment{KeyOf(pod), since}
		first, missed := before[a]
		if !missed {
			first = now
		}
		s.leaks.missing[a] = first
		if now.Sub(first) >= doubt && pod.Netns != "" {
			lost[a] = pod.Netns
		}
	}
	// A runtime that knows none of the pods is not the one that they are of, or it
	// has not read its own records yet.
	if !witnessed {
		clear(s.leaks.missing)
		return nil
	}
	return lost
}

// isLost reports whether the runtime answers, and does not know the sandbox of an
// attachment that is not just being made. That is no evidence that the pod is gone, but
// enough to let a port of the node go to one that Kubernetes has given it to.
func (s *Server) isLost(ctx context.Context, key Key) bool {
	since, ok := s.config.Book.recordedSince(key)
	if !ok || s.config.Runtime == nil || time.Since(since) < doubt {
		return false
	}
	sandboxes, err := s.config.Runtime.Sandboxes(ctx)
	return err == nil && !sandboxes[key.ContainerID] &&
		slices.ContainsFunc(s.config.Book.Recorded(), func(p model.Pod) bool { return sandboxes[p.ContainerID] })
}

// staleness says why a pod is to be detached; nothing where it stays.
type staleness func(ctx context.Context, pod model.Pod) (why string, err error)

// collect detaches the pods that are not to stay. Those with a request under way
// are left alone.
func (s *Server) collect(ctx context.Context, stale staleness) error {
	pods := s.config.Book.Recorded()
	for _, hostLink := range s.config.Book.Damaged() {
		pods = append(pods, model.Pod{HostLink: hostLink})
	}
	var errs []error
	for _, pod := range pods {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("look for pods that are gone: %w", err))
			break
		}
		errs = append(errs, s.collectOne(ctx, pod, stale))
	}
	return errors.Join(errs...)
}

func (s *Server) collectOne(ctx context.Context, pod model.Pod, stale staleness) error {
	unlock, ok := s.keys.tryLock(pod.HostLink)
	if !ok {
		return nil
	}
	defer unlock()
	// Since it was listed, it may have been detached, or attached again.
	current, exists := s.config.Book.Get(KeyOf(pod))
	addrs, damaged := s.config.Book.damagedAddrs(pod.HostLink)
	switch {
	case exists:
		pod = current
	case damaged:
		pod.Addrs = addrs
	default:
		return nil
	}
	why, err := stale(ctx, pod)
	if err != nil {
		return fmt.Errorf("find out whether %s is gone: %w", describe(pod), err)
	}
	if why == "" {
		return nil
	}
	log.FromContext(ctx).Info("detaching a pod that is no more", "pod", describe(pod), "link", pod.HostLink, "addresses", pod.Addrs, "reason", why)
	if err := s.detach(ctx, pod); err != nil {
		return err
	}
	reclaimed.Add(float64(len(pod.Addrs)))
	if s.config.Reclaimed != nil {
		s.config.Reclaimed(pod, why)
	}
	return nil
}
