// Package lifeline ends the programs that a test has started, such as an API server and etcd,
// when the test itself is killed and cannot.
package lifeline

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// variable marks this program's children, and theirs: they inherit it. A signal of the
// kernel's at the death of the parent would not do, as it comes when the thread that started a child
// ends, and tests in namespaces end threads.
const variable = "PODNET_TEST_LIFELINE"

// watch waits for the end of its input, and kills all programs with a mark in their
// environment but itself.
const watch = `
cat >/dev/null
for environment in /proc/[0-9]*/environ; do
	process=${environment#/proc/}
	process=${process%/environ}
	if [ "$process" != $$ ] && tr '\0' '\n' <"$environment" 2>/dev/null | grep -qx "$1"; then
		kill -KILL "$process" 2>/dev/null
	fi
done
exit 0
`

// Hold makes all programs that this one starts from now on end at the latest when it does,
// however that comes about. Let go of it when they have ended.
func Hold() (release func(), err error) {
	mark := rand.Text()
	if err := os.Setenv(variable, mark); err != nil {
		return nil, fmt.Errorf("mark the programs that are started: %w", err)
	}
	watcher := exec.Command("sh", "-c", watch, "lifeline", variable+"="+mark)
	// What ends this program by its group, such as a key, leaves the watcher alone.
	watcher.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	line, err := watcher.StdinPipe()
	if err == nil {
		err = watcher.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the watcher: %w", err)
	}
	return func() { end(line, watcher) }, nil
}

// end lets the watcher look for what is left.
func end(line io.Closer, watcher *exec.Cmd) {
	// Neither can fail in a way that matters to a test that is over.
	_ = line.Close()
	_ = watcher.Wait()
}
