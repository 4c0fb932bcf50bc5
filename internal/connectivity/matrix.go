package connectivity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Matrix says, for every pair of peers, what came of trying the second from the first.
type Matrix struct {
	// Peers are the rows and the columns.
	Peers []Peer
	// Families are those of which some peer has an address.
	Families []Family
	cells    map[cell]Result
}

type cell struct {
	from, to int
	family   Family
}

// Measure asks the server of every peer to try every other peer.
func Measure(ctx context.Context, peers []Peer, port uint16) *Matrix {
	m := &Matrix{Peers: peers, cells: map[cell]Result{}}
	for _, f := range []Family{IPv4, IPv6} {
		for _, p := range peers {
			if _, ok := p.addr(f); ok {
				m.Families = append(m.Families, f)
				break
			}
		}
	}
	var lock sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, 4)
	for from := range peers {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			row := m.row(ctx, from, port)
			lock.Lock()
			defer lock.Unlock()
			for at, result := range row {
				m.cells[at] = result
			}
		})
	}
	group.Wait()
	return m
}

// row asks one peer's server.
func (m *Matrix) row(ctx context.Context, from int, port uint16) map[cell]Result {
	var cells []cell
	var addrs []netip.Addr
	for to, p := range m.Peers {
		if to == from {
			continue
		}
		for _, f := range m.Families {
			_, has := m.Peers[from].addr(f)
			if a, ok := p.addr(f); ok && has {
				cells = append(cells, cell{from: from, to: to, family: f})
				addrs = append(addrs, a)
			}
		}
	}
	results, err := ask(ctx, m.Peers[from], addrs, port)
	row := make(map[cell]Result, len(cells))
	for i, at := range cells {
		if err != nil {
			row[at] = Result{Addr: addrs[i], Error: fmt.Sprintf("the server on %s could not be asked: %v", m.Peers[from].Name, err)}
			continue
		}
		row[at] = results[i]
	}
	return row
}

// ask makes the server of a peer try addresses. The server is reached at whichever of its own answers.
func ask(ctx context.Context, peer Peer, addrs []netip.Addr, port uint16) (results []Result, err error) {
	err = fmt.Errorf("it has no address")
	for _, a := range peer.Addrs {
		if results, err = askAt(ctx, netip.AddrPortFrom(a, port), addrs); err == nil {
			return results, nil
		}
	}
	return nil, err
}

func askAt(ctx context.Context, server netip.AddrPort, addrs []netip.Addr) ([]Result, error) {
	// As long as all of them may take that fail, four at a time.
	each := 2*pingTimeout + bulkTimeout
	ctx, cancel := context.WithTimeout(ctx, each*time.Duration(len(addrs)/4+2))
	defer cancel()
	body, err := json.Marshal(addrs)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+server.String()+pathProbe, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return nil, reason(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 512))
		return nil, fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(text)))
	}
	var results []Result
	if err := json.NewDecoder(response.Body).Decode(&results); err != nil {
		return nil, reason(err)
	}
	if len(results) != len(addrs) {
		return nil, fmt.Errorf("%d answers came for %d addresses", len(results), len(addrs))
	}
	return results, nil
}

// Failures says in sentences which peers did not reach which.
func (m *Matrix) Failures() []string {
	var failures []string
	for _, f := range m.Families {
		for from := range m.Peers {
			for to := range m.Peers {
				r, tried := m.cells[cell{from: from, to: to, family: f}]
				if tried && r.Error != "" {
					failures = append(failures, fmt.Sprintf("%s does not reach %s (%s): %s",
						m.Peers[from].Name, m.Peers[to].Name, r.Addr, r.Error))
				}
			}
		}
	}
	return failures
}

// Write prints a table for each family: a row for where packets come from, a column for where they go, the round trip
// in milliseconds.
func (m *Matrix) Write(w io.Writer) error {
	for _, f := range m.Families {
		table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
		fmt.Fprintf(table, "%s, ms\t", f)
		for _, p := range m.Peers {
			fmt.Fprintf(table, "%s\t", p.Name)
		}
		fmt.Fprintln(table)
		for from, p := range m.Peers {
			fmt.Fprintf(table, "%s\t", p.Name)
			for to := range m.Peers {
				fmt.Fprintf(table, "%s\t", m.text(cell{from: from, to: to, family: f}))
			}
			fmt.Fprintln(table)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Matrix) text(at cell) string {
	r, tried := m.cells[at]
	switch {
	case !tried:
		return "-"
	case r.Error != "":
		return "FAILS"
	}
	return fmt.Sprintf("%.2f", float64(r.RoundTrip)/float64(time.Millisecond))
}
