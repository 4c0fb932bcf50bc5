package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/podnet/podnet/agent/attach"
	"github.com/podnet/podnet/agent/cni/protocol"
	"github.com/podnet/podnet/agent/rootsocket"
	"github.com/podnet/podnet/internal/model"
)

const (
	// requestTimeout is a little less than podnet-cni's, so that it gets an answer.
	requestTimeout = 50 * time.Second
	// undoTimeout bounds the removal of what a failed ADD made.
	undoTimeout = 20 * time.Second
	// shutdownTimeout lets requests that are under way end before the agent does.
	shutdownTimeout = 10 * time.Second
	// maxRequest bounds a request in bytes: the kernel bounds none on a socket.
	maxRequest = 16 << 20
)

// Network is the node's part of the pod network, as far as attachments need it.
type Network interface {
	// Offer returns what new pods get, or an error, a sentence for the user, that
	// says why none can be attached now. It does not wait.
	Offer() (attach.Offer, error)
	// Attach makes a pod's link and returns when its addresses, routes and firewall
	// elements are in the kernel. What is there already is left alone.
	Attach(ctx context.Context, pod model.Pod) error
	// Detach removes them. It succeeds where they, or the pod's network namespace,
	// are gone.
	Detach(ctx context.Context, pod model.Pod) error
}

// Checker finds out whether a pod's attachment is whole.
type Checker interface {
	// CheckAttached returns an error that says what of the attachment is missing.
	CheckAttached(ctx context.Context, pod model.Pod) error
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Socket is the path of the Unix socket; protocol.DefaultSocket by default.
	Socket  string
	Book    *Book
	Network Network
	Checker Checker
	// Demand counts the ADDs that wait for an address, and Wanted is called, unless it is
	// nil, when it has changed. The ADD waits for it.
	Demand *attach.Demand
	Wanted func()
	// Present returns those of pods whose links exist on the node.
	Present func(ctx context.Context, pods []model.Pod) ([]model.Pod, error)
	// Runtime reports leaks that leave a network namespace behind; nil where it
	// cannot be asked.
	Runtime Runtime
	// Reclaimed is called, unless it is nil, of each pod whose addresses were taken
	// back without a DEL, and why, in part of a sentence. It must not block.
	Reclaimed func(pod model.Pod, why string)
}

// Server serves the verbs of the CNI specification to podnet-cni.
type Server struct {
	config ServerConfig
	keys   keyLocks
	leaks  leaks
	// ending is closed when no request shall wait any longer.
	ending chan struct{}
}

// NewServer returns a Server. It serves nothing before Run.
func NewServer(config ServerConfig) (*Server, error) {
	if config.Book == nil || config.Network == nil || config.Checker == nil || config.Demand == nil || config.Present == nil {
		return nil, errors.New("make CNI server: Book, Network, Checker, Demand and Present are needed")
	}
	if config.Socket == "" {
		config.Socket = protocol.DefaultSocket
	}
	return &Server{config: config, ending: make(chan struct{})}, nil
}

// Run serves, once, until ctx ends, lets the requests that are under way end, and
// leaves the socket's file: the next agent replaces it, and until then the kernel
// refuses connections at once. Requests outlast ctx: each ends by itself, within
// requestTimeout.
func (s *Server) Run(ctx context.Context) error {
	return rootsocket.Serve(ctx, rootsocket.Config{
		Path: s.config.Socket, Handler: s.handler(), HeaderTimeout: requestTimeout,
		Ending: func() { close(s.ending) }, Grace: shutdownTimeout,
	})
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for verb, serve := range map[protocol.Verb]func(context.Context, protocol.Request) (any, error){
		protocol.Add:    s.add,
		protocol.Del:    s.del,
		protocol.Check:  s.check,
		protocol.GC:     s.gc,
		protocol.Status: s.status,
	} {
		mux.HandleFunc("POST "+verb.Path(), func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, verb, serve)
		})
	}
	return mux
}

// serve decodes a request, has it served, and encodes the answer.
func (*Server) serve(w http.ResponseWriter, r *http.Request, verb protocol.Verb, serve func(context.Context, protocol.Request) (any, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	begun := time.Now()
	var request protocol.Request
	var answer any
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&request)
	if err != nil {
		err = types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode the request of podnet-cni: %v", err), "")
	} else {
		answer, err = serve(ctx, request)
	}
	verbSeconds.WithLabelValues(string(verb)).Observe(time.Since(begun).Seconds())
	logger := log.FromContext(ctx).WithValues("verb", verb, "containerID", request.ContainerID)
	status := http.StatusOK
	if err != nil {
		verbErrors.WithLabelValues(string(verb)).Inc()
		if verb == protocol.Status {
			// Runtimes ask every few seconds, and report the answer as the node's condition.
			logger = logger.V(1)
		}
		logger.Info("cannot serve a CNI request", "reason", err.Error())
		status, answer = http.StatusServiceUnavailable, cniError(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		logger.Error(err, "cannot answer a CNI request")
	}
}

// cniError returns err as the CNI specification has errors.
func cniError(err error) *types.Error {
	var e *types.Error
	var refused *RefusedError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &refused):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	default:
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
}
