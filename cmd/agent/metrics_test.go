package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// TestMetricsAreForThoseWhomTheAPIServerAllows scrapes an agent as Prometheus does, by HTTPS with a
// token. The API server is played: a token is the name of its user, and one user may read metrics.
func TestMetricsAreForThoseWhomTheAPIServerAllows(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(review))
	defer api.Close()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
		"clusters":[{"name":"c","cluster":{"server":%q}}],"users":[{"name":"u","user":{}}]}`, api.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", config)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := port.Addr().String()
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	mgr, _, err := newManager(options{metrics: at, probes: "0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // Each agent makes its own.
	for _, c := range []struct {
		token  string
		status int
		holds  string
	}{
		{"", http.StatusUnauthorized, ""},
		{"somebody", http.StatusForbidden, ""},
		{"reader", http.StatusOK, "podnet_agent_paths_unreachable"},
	} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.token != "" {
			request.Header.Set("Authorization", "Bearer "+c.token)
		}
		var answer *http.Response
		for answer == nil { // Until it listens.
			if answer, err = web.Do(request); err == nil {
				break
			}
			select {
			case err := <-ended:
				ended <- err
				t.Fatalf("the agent's manager has ended: %v", err)
			default:
			}
		}
		body, err := io.ReadAll(answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != c.status || !strings.Contains(string(body), c.holds) {
			t.Errorf("token %q: %s, %.200s", c.token, answer.Status, body)
		}
	}
}

// review answers what the agent asks the API server about who scrapes it.
func review(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch {
	case strings.HasSuffix(r.URL.Path, "/tokenreviews"):
		var is authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&is); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		is.Status.Authenticated, is.Status.User.Username = true, is.Spec.Token
		answer = is
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews"):
		var is authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&is); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		asked := is.Spec.NonResourceAttributes
		is.Status.Allowed = is.Spec.User == "reader" && asked != nil && asked.Path == "/metrics" && asked.Verb == "get"
		answer = is
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(err)
	}
}
