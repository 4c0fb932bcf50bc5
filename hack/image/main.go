// Command image writes a container image as a docker archive from files of this machine, without a registry or a
// container runtime.
//
// The image has one layer: the files named with -file and -dir, the symbolic links named with -link, and the programs
// named with -program together with the shared libraries that the dynamic linker loads for them. The same inputs
// give the same bytes: entries are sorted and carry no times or owners.
//
//	go run ./hack/image -o bin/podnet.tar -tag podnet/podnet:dev -entrypoint /manager \
//	    -file bin/manager:/manager -program /usr/sbin/nft
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// options are what the command line says.
type options struct {
	out                     string
	tags, entrypoint, cmd   list
	env                     list
	user, workdir           string
	files, dirs, links      list
	programs, librariesFrom list
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.out, "o", "", "archive to write")
	flags.Var(&o.tags, "tag", "name of the image, such as example.org/app:v1 (repeatable)")
	flags.Var(&o.entrypoint, "entrypoint", "entrypoint, one word each (repeatable)")
	flags.Var(&o.cmd, "cmd", "default arguments, one word each (repeatable)")
	flags.Var(&o.env, "env", "NAME=VALUE of the image's environment (repeatable)")
	flags.StringVar(&o.user, "user", "", "user that the image runs as, such as 65532:65532")
	flags.StringVar(&o.workdir, "workdir", "", "working directory")
	flags.Var(&o.files, "file", "SOURCE:/DESTINATION, a file (repeatable)")
	flags.Var(&o.dirs, "dir", "/PATH[:MODE], an empty directory with an octal mode (repeatable)")
	flags.Var(&o.links, "link", "TARGET:/PATH, a symbolic link (repeatable)")
	flags.Var(&o.programs, "program", "/PATH of a program to put at the same path, with its libraries (repeatable)")
	flags.Var(&o.librariesFrom, "libs-of", "/PATH of a file whose libraries, but not itself, go into the image (repeatable)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.out == "":
		return fmt.Errorf("-o is required")
	case len(o.tags) == 0:
		return fmt.Errorf("-tag is required")
	}

	l, err := o.layer()
	if err != nil {
		return err
	}
	return writeArchive(o, l)
}

// layer collects everything that the options put into the image.
func (o *options) layer() (*layer, error) {
	l := newLayer()
	for _, spec := range o.dirs {
		if err := l.addDir(spec); err != nil {
			return nil, fmt.Errorf("-dir %s: %w", spec, err)
		}
	}
	for _, spec := range o.files {
		source, destination, found := strings.Cut(spec, ":")
		if !found {
			return nil, fmt.Errorf("-file %s: want SOURCE:/DESTINATION", spec)
		}
		if err := l.addFile(source, destination); err != nil {
			return nil, fmt.Errorf("-file %s: %w", spec, err)
		}
	}
	for _, spec := range o.links {
		target, path, found := strings.Cut(spec, ":")
		if !found {
			return nil, fmt.Errorf("-link %s: want TARGET:/PATH", spec)
		}
		if err := l.addLink(target, path); err != nil {
			return nil, fmt.Errorf("-link %s: %w", spec, err)
		}
	}
	for _, program := range o.programs {
		if err := l.addFile(program, program); err != nil {
			return nil, fmt.Errorf("-program %s: %w", program, err)
		}
	}
	for _, program := range append(append(list{}, o.programs...), o.librariesFrom...) {
		if err := l.addLibraries(program); err != nil {
			return nil, fmt.Errorf("libraries of %s: %w", program, err)
		}
	}
	return l, nil
}
