package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/internal/model"
)

// done is the answer where the specification has none.
type done struct{}

// add attaches a pod. Its addresses are recorded before its link is made, so
// that a crash leaves at worst a record without a link, which DEL removes.
func (s *Server) add(ctx context.Context, request protocol.Request) (any, error) {
	pod, err := parsePod(request)
	if err != nil {
		return nil, err
	}
	defer s.keys.lock(pod.HostLink)()
	offer, err := s.offer()
	if err != nil {
		return nil, err
	}
	recorded, exists := s.config.Book.Get(KeyOf(pod))
	if exists && sameRequest(recorded, pod) && !s.config.Book.isLeaving(KeyOf(pod)) {
		// A runtime repeats an ADD that it has no answer to. The attachment may be
		// in use, so that it is not removed where it cannot be made whole.
		if err := s.config.Network.Attach(ctx, recorded); err != nil {
			return nil, fmt.Errorf("attach %s again: %w", describe(recorded), err)
		}
		return newResult(recorded, request.Netns), nil
	}
	if err := s.detach(ctx, pod); err != nil {
		return nil, fmt.Errorf("remove what an earlier attachment of %s left: %w", describe(pod), err)
	}
	reserved, err := s.reserve(ctx, pod, offer)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", describe(pod), err)
	}
	if err := s.config.Network.Attach(ctx, reserved); err != nil {
		err = fmt.Errorf("attach %s: %w", describe(reserved), err)
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return nil, errors.Join(err, s.detach(undo, reserved))
	}
	return newResult(reserved, request.Netns), nil
}

// sameRequest reports whether a recorded attachment is what a pod asks for.
func sameRequest(recorded, pod model.Pod) bool {
	return recorded.Netns == pod.Netns && recorded.Namespace == pod.Namespace && recorded.Name == pod.Name &&
		slices.Equal(recorded.HostPorts, pod.HostPorts)
}

// describe names a pod in errors.
func describe(pod model.Pod) string {
	switch {
	case pod.Name == "" && pod.ContainerID == "":
		return "the pod on link " + pod.HostLink
	case pod.Name == "":
		return "container " + pod.ContainerID
	}
	return fmt.Sprintf("pod %s/%s", pod.Namespace, pod.Name)
}

// del detaches a pod. An ADD of the same attachment that waits for an address
// ends.
func (s *Server) del(ctx context.Context, request protocol.Request) (any, error) {
	key, err := keyOfRequest(request)
	if err != nil {
		return nil, err
	}
	pod := model.Pod{ContainerID: key.ContainerID, IfName: key.IfName, HostLink: key.HostLink(), Netns: netnsPath(request.Netns)}
	defer s.keys.lockSoon(pod.HostLink)()
	if err := s.detach(ctx, pod); err != nil {
		return nil, err
	}
	return done{}, nil
}

// detach removes the link of the attachment with the pod's host link, then its
// record: until the link is gone its addresses must not be given again. It
// succeeds where there is neither. The caller holds the attachment's lock.
func (s *Server) detach(ctx context.Context, pod model.Pod) error {
	if recorded, exists := s.config.Book.Get(KeyOf(pod)); exists {
		pod = recorded
	} else if _, damaged := s.config.Book.damagedAddrs(pod.HostLink); !damaged {
		return nil
	}
	s.config.Book.leave(KeyOf(pod))
	if err := s.config.Network.Detach(ctx, pod); err != nil {
		return fmt.Errorf("detach %s: %w", describe(pod), err)
	}
	return s.config.Book.release(pod.HostLink)
}

// check reports whether a pod's attachment is as ADD left it.
func (s *Server) check(ctx context.Context, request protocol.Request) (any, error) {
	key, err := keyOfRequest(request)
	if err != nil {
		return nil, err
	}
	conf, err := parseConfig(request)
	if err != nil {
		return nil, err
	}
	defer s.keys.lock(key.HostLink())()
	pod, exists := s.config.Book.Get(key)
	if !exists {
		return nil, types.NewError(types.ErrUnknownContainer, fmt.Sprintf("interface %s of container %s is not attached", key.IfName, key.ContainerID), "")
	}
	if err := checkPrevResult(conf.PrevResult, pod); err != nil {
		return nil, fmt.Errorf("check %s: %w", describe(pod), err)
	}
	if err := s.config.Checker.CheckAttached(ctx, pod); err != nil {
		return nil, fmt.Errorf("check %s: %w", describe(pod), err)
	}
	return done{}, nil
}

// gc detaches the pods that the runtime does not know. Where it does not say
// which it knows, all stay: unknown is not empty.
func (s *Server) gc(ctx context.Context, request protocol.Request) (any, error) {
	conf, err := parseConfig(request)
	if err != nil {
		return nil, err
	}
	if conf.ValidAttachments == nil {
		return done{}, nil
	}
	valid := map[string]bool{}
	for _, a := range conf.ValidAttachments {
		valid[Key{ContainerID: a.ContainerID, IfName: a.IfName}.HostLink()] = true
	}
	err = s.collect(ctx, func(_ context.Context, pod model.Pod) (string, error) {
		if valid[pod.HostLink] {
			return "", nil
		}
		return "the runtime no longer counts it among its attachments", nil
	})
	if err != nil {
		return nil, err
	}
	return done{}, nil
}

// status reports whether the node has a network. Runtimes report it as the node's
// readiness, and a node that is not ready loses its pods: once pods could be
// attached, their packets flow whatever keeps new ones waiting, so that from then
// on ADD alone says what is wrong.
func (s *Server) status(context.Context, protocol.Request) (any, error) {
	offer, err := s.config.Network.Offer()
	if err == nil && len(offer.Blocks) == 0 {
		err = &RefusedError{Sentence: noBlock}
	}
	served := protocol.ServedPath(s.config.Socket)
	if _, never := os.Stat(served); err != nil && never != nil {
		return nil, types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	if err := touch(served); err != nil {
		return nil, fmt.Errorf("record that pods can be attached: %w", err)
	}
	return done{}, nil
}

// touch sets the time of a file's last change to now, and makes it if need be.
func touch(path string) error {
	now := time.Now()
	err := os.Chtimes(path, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(path, nil, recordMode)
	}
	return err
}
