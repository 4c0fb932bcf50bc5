// Package dump serves what the agent knows to root on its node, for people and for programs
// that look into a node: documents in JSON, whose form is versioned, and profiles of the
// process. Nothing can be changed by it. What there is to know is left to who gives the
// documents.
package dump

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"reflect"
	"text/tabwriter"
	"time"

	"github.com/podnet/podnet/agent/rootsocket"
)

// Version is that of the documents. A field that goes, or means something else, makes it
// another one; a field that comes does not.
const Version = "v1"

// Times of requests.
const (
	headerTimeout = 10 * time.Second
	grace         = time.Second
)

// Document is something that the agent knows.
type Document struct {
	Name string
	// About says what it holds, in part of a sentence.
	About string
	// Read returns it as it is at this moment, without waiting for the kernel, and the
	// version of the State that it is of; 0 where it is of none.
	Read func(ctx context.Context) (value any, version uint64, err error)
}

// Config is what is served where.
type Config struct {
	// Socket is the path of the Unix socket, in a folder that is made for it.
	Socket string
	// Node is the node's name.
	Node      string
	Documents []Document
}

// Run serves documents until ctx ends.
func Run(ctx context.Context, c Config) error {
	return rootsocket.Serve(ctx, rootsocket.Config{Path: c.Socket, Handler: handler(c), HeaderTimeout: headerTimeout, Grace: grace})
}

// profiles are what is served besides documents.
var profiles = []struct {
	name, about string
	serve       http.HandlerFunc
}{
	{"goroutines", "the stacks of all goroutines, as text", func(w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = "debug=2"
		pprof.Handler("goroutine").ServeHTTP(w, r)
	}},
	{"heap", "a profile of the memory in use, for go tool pprof", pprof.Handler("heap").ServeHTTP},
	{"profile", "a profile of 30 seconds of processor time, for go tool pprof", pprof.Profile},
}

func handler(c Config) http.Handler {
	mux := http.NewServeMux()
	var index bytes.Buffer
	table := tabwriter.NewWriter(&index, 0, 0, 2, ' ', 0)
	for _, d := range c.Documents {
		fmt.Fprintf(table, "%s\t%s\n", d.Name, d.About)
		mux.HandleFunc("GET /"+Version+"/"+d.Name, func(w http.ResponseWriter, r *http.Request) { serve(w, r, c.Node, d) })
	}
	for _, p := range profiles {
		fmt.Fprintf(table, "%s\t%s\n", p.name, p.about)
		mux.HandleFunc("GET /"+Version+"/"+p.name, p.serve)
	}
	table.Flush() //nolint:errcheck // A buffer takes all.
	mux.HandleFunc("GET /"+Version+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(index.Bytes()) //nolint:errcheck // Who does not read it has gone.
	})
	return mux
}

func serve(w http.ResponseWriter, r *http.Request, node string, d Document) {
	value, version, err := d.Read(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := members{{"version", Version}, {"node", node}, {"time", time.Now().UTC().Truncate(time.Second)}}
	if version > 0 {
		out = append(out, member{"state", version})
	}
	text, err := json.MarshalIndent(append(out, member{d.Name, encode(reflect.ValueOf(value))}), "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n')) //nolint:errcheck // Who does not read it has gone.
}

// Fetch writes what is served on a socket by a name, and the list of names where that is empty.
func Fetch(ctx context.Context, socket, name string, to io.Writer) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/"+Version+"/"+name, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for %q: %w", name, err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the agent, which must run on this node: %w", err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return fmt.Errorf("the agent has no %q: without an argument, dump lists what it has", name)
	default:
		text, _ := io.ReadAll(answer.Body) // What could be read says enough.
		return fmt.Errorf("read %s: %s", name, bytes.TrimSpace(text))
	}
	if _, err := io.Copy(to, answer.Body); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
