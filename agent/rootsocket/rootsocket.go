// Package rootsocket serves HTTP on Unix sockets that only root can use. What is served is left
// to others.
package rootsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Config says what is served where.
type Config struct {
	// Path is the socket's. Folders that it lacks are made, for root alone.
	Path    string
	Handler http.Handler
	// HeaderTimeout bounds the time in which a request is read.
	HeaderTimeout time.Duration
	// Ending, unless it is nil, is called when no more requests are taken, and Grace is for
	// how long those that are under way may go on then.
	Ending func()
	Grace  time.Duration
}

// Serve serves until ctx ends, lets the requests that are under way end, and leaves the
// socket's file: the next process replaces it, and until then the kernel refuses
// connections at once. Requests outlast ctx.
func Serve(ctx context.Context, c Config) error {
	listener, err := listen(c.Path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.Path, err)
	}
	base := context.WithoutCancel(ctx)
	server := &http.Server{Handler: c.Handler, BaseContext: func(net.Listener) context.Context { return base }, ReadHeaderTimeout: c.HeaderTimeout}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", c.Path, err)
	case <-ctx.Done():
	}
	if c.Ending != nil {
		c.Ending()
	}
	shutdown, cancel := context.WithTimeout(base, c.Grace)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil {
		return fmt.Errorf("end the requests on %s: %w", c.Path, errors.Join(err, server.Close()))
	}
	return nil
}

// listen returns a listener on a socket that only root can use. The socket takes
// its name once it has its mode and listens, in place of a former process's.
func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	fresh := socket + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// What it would unlink at the end may be the socket of the next process.
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, socket)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}
