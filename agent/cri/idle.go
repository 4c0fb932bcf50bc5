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

// Idle reports whether no process of the node is in a network namespace, given by its
// path. It returns an error where that cannot be told for certain.
func (r *Runtime) Idle(ctx context.Context, netns string) (bool, error) {
	idle, err := r.IdleAmong(ctx, []string{netns})
	return idle[netns], err
}

// IdleAmong returns those of the network namespaces at some paths that no process of
// the node is in, by one look at all processes. It returns an error too where that
// cannot be told for certain of all the others.
func (r *Runtime) IdleAmong(ctx context.Context, netns []string) (map[string]bool, error) {
	if err := r.seesProcesses(ctx); err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	own, err := namespaceAt(filepath.Join(r.proc, "self/ns/net"))
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	suspects := map[namespace][]string{}
	var errs []error
	for _, path := range netns {
		wanted, err := namespaceAt(path)
		if err == nil && wanted.device != own.device {
			// A file at the path of a namespace is not the namespace.
			err = errors.New("it is no network namespace")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look for processes in %s: %w", path, err))
			continue
		}
		suspects[wanted] = append(suspects[wanted], path)
	}
	if err := removeBusy(ctx, r.proc, suspects); err != nil {
		errs = append(errs, fmt.Errorf("look for processes: %w", err))
		clear(suspects)
	}
	idle := map[string]bool{}
	for _, paths := range suspects {
		for _, path := range paths {
			idle[path] = true
		}
	}
	return idle, errors.Join(errs...)
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

// removeBusy removes the namespaces from suspects that any thread is in: the threads
// of a process may be in several. It returns an error where not all threads could be
// looked at, unless no suspect is left: then these do not matter.
func removeBusy(ctx context.Context, proc string, suspects map[namespace][]string) error {
	if len(suspects) == 0 {
		return nil
	}
	processes, err := os.ReadDir(proc)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		errs = append(errs, removeBusyBy(filepath.Join(proc, p.Name(), "task"), suspects))
		if len(suspects) == 0 {
			return nil
		}
	}
	return errors.Join(errs...)
}

// removeBusyBy is removeBusy for the threads of one process.
func removeBusyBy(tasks string, suspects map[namespace][]string) error {
	threads, err := os.ReadDir(tasks)
	if ended(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, thread := range threads {
		have, err := namespaceAt(filepath.Join(tasks, thread.Name(), "ns/net"))
		switch {
		case ended(err):
		case err != nil:
			errs = append(errs, err)
		default:
			delete(suspects, have)
		}
	}
	return errors.Join(errs...)
}

// ended reports whether an error means that a thread has ended meanwhile. One that has
// ended and was not waited for yet is in no namespace any more.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
