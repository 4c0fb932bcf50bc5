package connectivity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Probe tries a server: a small UDP datagram and its answer, several times, and a TCP connection over which more comes
// back than fits into small packets.
func Probe(ctx context.Context, target netip.AddrPort) Result {
	result := Result{Addr: target.Addr()}
	roundTrip, err := ping(ctx, target)
	if err == nil {
		err = bulk(ctx, target)
	}
	if err != nil {
		result.Error = err.Error()
		return result
	}
	result.RoundTrip = roundTrip
	return result
}

// ping returns the shortest round trip of several. One lost datagram of them is no failure.
func ping(ctx context.Context, target netip.AddrPort) (time.Duration, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", target.String())
	if err != nil {
		return 0, fmt.Errorf("UDP: %w", reason(err))
	}
	defer conn.Close()
	var best time.Duration
	var failures []error
	for range pings {
		took, err := pingOnce(conn)
		if err != nil {
			failures = append(failures, reason(err))
			if len(failures) == 2 {
				return 0, fmt.Errorf("UDP: %w", failures[0])
			}
			continue
		}
		if best == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

func pingOnce(conn net.Conn) (time.Duration, error) {
	question := make([]byte, pingSize)
	if _, err := rand.Read(question); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := conn.SetDeadline(start.Add(pingTimeout)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(question); err != nil {
		return 0, err
	}
	answer := make([]byte, pingSize+1)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return 0, err
		}
		// The answer to an earlier question may come late.
		if bytes.Equal(answer[:n], question) {
			return time.Since(start), nil
		}
	}
}

// bulk fetches more than fits into one packet over a connection of its own.
func bulk(ctx context.Context, target netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target.String()+pathBulk, http.NoBody)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("TCP: %w", reason(err))
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("TCP: %d of %d bytes came, then: %w", n, bulkSize, reason(err))
	case n != bulkSize:
		return fmt.Errorf("TCP: %d of %d bytes came", n, bulkSize)
	}
	return nil
}

// reason leaves the addresses out of an error of the net package: who reads it knows them.
func reason(err error) error {
	var number syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &number):
		return number
	}
	return err
}
