package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Idle says whether no process of the node is in a network namespace, given by its
// path. It returns an error where that cannot be told for certain.
func (r *Runtime) Idle(ctx context.Context, netns string) (bool, error) {
	if err := r.seesProcesses(ctx); err != nil {
		return false, fmt.Errorf("look for processes in %s: %w", netns, err)
	}
	wanted, err := namespaceAt(netns)
	if err != nil {
		return false, fmt.Errorf("look for processes in %s: %w", netns, err)
	}
	own, err := namespaceAt(filepath.Join(r.proc, "self/ns/net"))
	if err != nil {
		return false, fmt.Errorf("look for processes in %s: %w", netns, err)
	}
	if own.device != wanted.device {
		// A file at the path of a namespace is not the namespace.
		return false, fmt.Errorf("look for processes in %s: it is no network namespace", netns)
	}
	found, err := anyThreadIn(ctx, r.proc, wanted)
	if err != nil {
		return false, fmt.Errorf("look for processes in %s: %w", netns, err)
	}
	return !found, nil
}

// namespace identifies a namespace (namespaces(7)).
type namespace struct{ device, inode uint64 }

func namespaceAt(path string) (namespace, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespace{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespace{device: st.Dev, inode: st.Ino}, nil
}

// anyThreadIn says whether any thread is in a namespace: the threads of a process
// may be in several. Where one is found, it does not matter that others could not
// be looked at.
func anyThreadIn(ctx context.Context, proc string, wanted namespace) (bool, error) {
	processes, err := os.ReadDir(proc)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		found, err := anyThreadOf(filepath.Join(proc, p.Name(), "task"), wanted)
		if found {
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

func anyThreadOf(tasks string, wanted namespace) (bool, error) {
	threads, err := os.ReadDir(tasks)
	if ended(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var errs []error
	for _, thread := range threads {
		have, err := namespaceAt(filepath.Join(tasks, thread.Name(), "ns/net"))
		switch {
		case ended(err):
		case err != nil:
			errs = append(errs, err)
		case have == wanted:
			return true, nil
		}
	}
	return false, errors.Join(errs...)
}

// ended says whether an error means that a thread has ended meanwhile. One that has
// ended and was not waited for yet is in no namespace any more.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
