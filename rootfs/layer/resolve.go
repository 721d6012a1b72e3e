package layer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

const (
	maxLinks = 255     // symbolic links followed for one path
	maxSteps = 1 << 14 // names looked up for one path, those in links included
)

var errAbsent = errors.New("does not exist")

// resolve finds the directory of a path, as a process would whose root is the
// image: symbolic links are followed, and ".." in them ends at the root. With create
// set, directories that are missing are made.
func (a *applier) resolve(name string, create bool) (erofs.Ino, error) {
	dir := erofs.Root
	links, steps := 0, 0
	// What is still to walk, the next part last.
	todo := []string{name}
	for len(todo) > 0 {
		rest := strings.TrimLeft(todo[len(todo)-1], "/")
		todo = todo[:len(todo)-1]
		part, more, _ := strings.Cut(rest, "/")
		if more != "" {
			todo = append(todo, more)
		}
		if steps++; steps > maxSteps {
			return 0, fmt.Errorf("%w: at %.300q", ErrLoop, part)
		}
		switch part {
		case "", ".":
			continue
		case "..":
			dir = a.w.Parent(dir)
			continue
		}
		ino, ok := a.w.Lookup(dir, part)
		switch {
		case !ok && !create:
			return 0, errAbsent
		case !ok:
			made, err := a.mkdir(dir, part)
			if err != nil {
				return 0, err
			}
			dir = made
		case isDir(a.w.Mode(ino)):
			dir = ino
		case a.w.Mode(ino)&erofs.ModeType == erofs.ModeSymlink:
			if links++; links > maxLinks {
				return 0, fmt.Errorf("%w: at %.300q", ErrLoop, part)
			}
			target, err := a.w.Target(ino)
			if err != nil {
				return 0, wrap(err)
			}
			if target[0] == '/' {
				dir = erofs.Root
			}
			todo = append(todo, target)
		default:
			return 0, fmt.Errorf("%w: %.300q", ErrNotDir, part)
		}
	}
	return dir, nil
}

// mkdir makes a directory that a layer has no entry for.
func (a *applier) mkdir(dir erofs.Ino, name string) (erofs.Ino, error) {
	if len(name) > erofs.MaxName {
		return 0, fmt.Errorf("%w: name longer than %d bytes", ErrPath, erofs.MaxName)
	}
	if a.stats.Entries++; a.stats.Entries > a.limits.Entries {
		return 0, fmt.Errorf("more than %d entries: %w", a.limits.Entries, ErrLimit)
	}
	ino, err := a.w.Node(erofs.Attr{Mode: erofs.ModeDir | 0o755})
	if err != nil {
		return 0, wrap(err)
	}
	return ino, a.put(dir, name, ino)
}

// whiteout hides what lower layers have: one name, or all of a directory. What the
// layer itself has stays, whichever comes first in it.
func (a *applier) whiteout(parent, base string) error {
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if base != whiteoutOpaque && (hidden == "" || hidden == "." || hidden == "..") {
		return ErrWhiteout
	}
	dir, err := a.resolve(parent, false)
	if errors.Is(err, errAbsent) || errors.Is(err, ErrNotDir) {
		return nil // there is nothing to hide
	} else if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		a.hideAll(dir)
	} else if ino, ok := a.w.Lookup(dir, hidden); ok {
		a.hide(dir, hidden, ino)
	}
	return nil
}

// hideAll removes what is in a directory, except what is of this layer. Nothing of
// it is left when it returns true.
func (a *applier) hideAll(dir erofs.Ino) (empty bool) {
	empty = true
	for name, ino := range a.w.Names(dir) {
		empty = a.hide(dir, name, ino) && empty
	}
	return empty
}

// hide removes a name, except when it, or something below it, is of this layer.
// Limits.PathDepth bounds the recursion.
func (a *applier) hide(dir erofs.Ino, name string, ino erofs.Ino) (gone bool) {
	if isDir(a.w.Mode(ino)) && !a.hideAll(ino) {
		return false
	}
	if mark, _ := a.w.Mark(dir, name, false); mark == a.mark {
		return false
	}
	a.w.Remove(dir, name)
	return true
}
