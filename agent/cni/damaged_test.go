package cni

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/podnet/podnet/internal/model"
)

func TestDamagedFilesOfTheOrderAreSetAside(t *testing.T) {
	for _, name := range []string{cursorsName, releasedName} {
		for what, content := range map[string]string{
			"empty": "", "null": "null", "a list": "[1]", "an object": `{"a":1}`, "cut off": `{"10.0.0.0/24":"10.0`, "a number": "7",
			"another block's address": `{"10.0.0.0/24":"10.9.0.1"}`, "no address": `[{"addr":"","at":"2026-01-01T00:00:00Z"}]`,
			"doubled": `{}{}`, "zeros": "\x00\x00\x00",
		} {
			if name == releasedName && what == "null" {
				// No releases are none.
				continue
			}
			t.Run(name+" "+what, func(t *testing.T) {
				dir := folder(t)
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					book := open(t, dir)
					if len(book.Damaged()) > 0 {
						t.Errorf("records %v are taken for damaged", book.Damaged())
					}
				}
				if aside, err := os.ReadFile(filepath.Join(dir, name+model.DamagedSuffix)); err != nil || string(aside) != content {
					t.Errorf("set aside is %q: %v", aside, err)
				}
				book := open(t, dir)
				pod := reserve(t, book, "a", "10.0.0.0/24")
				if err := book.Release(KeyOf(pod)); err != nil {
					t.Fatal(err)
				}
				reserve(t, open(t, dir), "b", "10.0.0.0/24")
			})
		}
	}
}

// What is no file cannot be a record.
func TestFoldersAmongTheAttachmentsAreLeftAlone(t *testing.T) {
	dir := folder(t)
	for _, name := range []string{"a.json", "b.damaged", cursorsName} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if book := open(t, dir); len(book.Recorded())+len(book.Damaged()) > 0 {
		t.Errorf("recorded are %v, damaged %v", book.Recorded(), book.Damaged())
	}
}
