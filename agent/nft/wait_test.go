package nft_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	writer "github.com/podnet/podnet/agent/nft"
	"github.com/podnet/podnet/internal/nft"
)

// held is a program nft that is held up by the inet table "slow".
const held = `#!/bin/sh
case "$1" in --version) echo "nftables v1.0.6 (Lester Gooch #5)"; exit;; esac
case "$(cat)" in
*"inet slow"*)
	echo > "$DIR/began"
	read -r _ < "$DIR/end"
esac
`

// Whoever has a Conn of its own does not wait for another's transaction, however long that takes.
func TestNoWriterWaitsForAnother(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(held), 0o700); err != nil { //nolint:gosec // It is executed.
		t.Fatal(err)
	}
	began, end := filepath.Join(dir, "began"), filepath.Join(dir, "end")
	for _, fifo := range []string{began, end} {
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DIR", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write := func(ctx context.Context, name string) error {
		conn, err := writer.Open()
		if err != nil {
			return err
		}
		return writer.NewWriter(conn, name, func() {}).Write(ctx, []nft.Table{{Family: nft.Inet, Name: name}})
	}
	done := make(chan error)
	go func() { done <- write(t.Context(), "slow") }()
	if _, err := os.ReadFile(began); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := write(ctx, "fast"); err != nil {
		t.Errorf("while another table is written: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("nft was not held: %v", err)
	default:
	}
	if err := os.WriteFile(end, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
