package main

import (
	"io"
	"net"
	"testing"
	"time"
)

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.(*net.TCPListener)
}

// An end of stream in one direction must not cut the other: that is how a client says that its request is complete.
func TestHalfClosedConnectionStillCarriesTheAnswer(t *testing.T) {
	server := listen(t)
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, err := io.ReadAll(conn)
		if err == nil {
			_, _ = conn.Write(append([]byte("answer to "), request...))
		}
	}()
	front := listen(t)
	go func() {
		_ = serve(front, func() (*net.TCPConn, error) {
			return net.DialTCP("tcp", nil, server.Addr().(*net.TCPAddr))
		})
	}()

	client, err := net.DialTCP("tcp", nil, front.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(client)
	if err != nil || string(answer) != "answer to request" {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestClosedListenerEndsServing(t *testing.T) {
	listener := listen(t)
	listener.Close()
	if err := serve(listener, nil); err != nil {
		t.Errorf("serve returned %v, want nil", err)
	}
}
