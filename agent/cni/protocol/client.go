package protocol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// dialTimeout is for an agent whose queue of connections is full: without a
// listener the kernel refuses at once.
const dialTimeout = time.Second

// Call sends a request to the agent that listens on socket, and stores its
// answer in result unless that is nil. Its errors are of type *types.Error:
// ErrTryAgainLater where the agent does not answer, else what the agent said.
func Call(ctx context.Context, socket string, verb Verb, request Request, result any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("encode the request to podnet's agent: %v", err), "")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://podnet"+verb.Path(), bytes.NewReader(body))
	if err != nil {
		return types.NewError(types.ErrInternal, fmt.Sprintf("make the request to podnet's agent: %v", err), "")
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := client(socket).Do(r)
	if err != nil {
		return noAnswer(socket, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return noAnswer(socket, err)
	}
	if response.StatusCode != http.StatusOK {
		return agentError(response.StatusCode, answer)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode the answer of podnet's agent: %v", err), "")
	}
	return nil
}

func client(socket string) *http.Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
}

// agentError is the error that the agent answered with.
func agentError(status int, answer []byte) error {
	var e types.Error
	if err := json.Unmarshal(answer, &e); err != nil || e.Msg == "" {
		return types.NewError(types.ErrInternal, fmt.Sprintf("podnet's agent answered with HTTP status %d", status), string(answer))
	}
	return &e
}

// noAnswer is the error of a request that the agent did not answer. Its reason
// is in words of its own: containerd takes a failed DEL whose message contains
// "no such file or directory" for a success.
func noAnswer(socket string, err error) error {
	reason := err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = "the socket does not exist"
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = "nobody listens on the socket"
	case errors.Is(err, context.DeadlineExceeded):
		reason = "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		reason = "the agent ended before it answered"
	}
	return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("podnet's agent does not answer on this node (socket %s): "+
		"is the pod of DaemonSet podnet-agent running?", socket), reason)
}
