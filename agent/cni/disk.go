package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// temporaryPrefix begins the names of files that are being written.
const temporaryPrefix = ".podnet-"

// disk writes and removes files so that a crash at any moment leaves either the
// file of before or the one of after.
type disk interface {
	write(path string, content []byte, mode fs.FileMode) error
	// remove succeeds where there is no such file.
	remove(path string) error
}

type osDisk struct{}

func (osDisk) write(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporaryPrefix+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = fill(f, content, mode)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return syncFolder(filepath.Dir(path))
}

// fill writes content to the file, through to the disk, and closes it.
func fill(f *os.File, content []byte, mode fs.FileMode) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (osDisk) remove(path string) error {
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder outlast a crash.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	err = errors.Join(f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil
}
