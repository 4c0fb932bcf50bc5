// Command forward listens on a loopback address of the network namespace it is started in, and carries each connection
// to an address inside another network namespace.
//
// It is how the machine reaches the API server of a cluster whose nodes are namespaces, without any link
// between those namespaces and the machine's own network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

func run() error {
	netns := flag.String("netns", "", "path of the network namespace to dial in, such as /proc/PID/ns/net")
	to := flag.String("to", "", "address to dial there, IP:PORT")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on, IP:PORT")
	addressFile := flag.String("address-file", "", "file to write the listening address into, once it listens")
	flag.Parse()

	target, err := ns.GetNS(*netns)
	if err != nil {
		return fmt.Errorf("opening network namespace: %w", err)
	}
	defer target.Close()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { listener.Close() })
	if *addressFile != "" {
		if err := writeFile(*addressFile, listener.Addr().String()); err != nil {
			return err
		}
	}
	return serve(listener, func() (*net.TCPConn, error) { return dialIn(target, *to) })
}

// writeFile replaces a file in one step, as its reader polls for it.
func writeFile(path, content string) error {
	partial := filepath.Join(filepath.Dir(path), ".partial-"+filepath.Base(path))
	if err := os.WriteFile(partial, []byte(content+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// serve accepts until the listener is closed.
func serve(listener net.Listener, dial func() (*net.TCPConn, error)) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := carry(conn.(*net.TCPConn), dial); err != nil {
				fmt.Fprintln(os.Stderr, "forward:", err)
			}
		}()
	}
}

// dialIn connects from inside a namespace. A socket belongs to the namespace that its thread is in when it is made, so
// what is returned can be used from anywhere.
func dialIn(netns ns.NetNS, address string) (*net.TCPConn, error) {
	var conn net.Conn
	err := netns.Do(func(ns.NetNS) (err error) {
		// An IP address, never a name: Go would resolve a name on other threads, which are in another namespace.
		conn, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// carry copies both directions until both have ended.
func carry(near *net.TCPConn, dial func() (*net.TCPConn, error)) error {
	defer near.Close()
	far, err := dial()
	if err != nil {
		return err
	}
	defer far.Close()
	var directions sync.WaitGroup
	for _, pair := range [][2]*net.TCPConn{{near, far}, {far, near}} {
		directions.Go(func() {
			// An error is an end like any other here: the other side gets to see the end of the stream.
			_, _ = io.Copy(pair[1], pair[0])
			_ = pair[1].CloseWrite()
		})
	}
	directions.Wait()
	return nil
}
