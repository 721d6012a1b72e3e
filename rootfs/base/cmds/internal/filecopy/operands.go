// Package filecopy copies and places files for cp, mv, ln and install.
package filecopy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Pair is a source and the name that it gets.
type Pair struct{ From, To string }

// Place tells how operands name a target.
type Place struct {
	Dir   string // every operand is a source, and goes into this folder
	Plain bool   // the last operand is never a folder to put things into
	// NoFollow: a link to a folder is not a folder.
	NoFollow bool
}

// Pairs works out what goes where.
func (p *Place) Pairs(operands []string) ([]Pair, error) {
	dir := p.Dir
	if dir == "" {
		if len(operands) < 2 {
			return nil, errors.New("a source and a target are needed")
		}
		last := operands[len(operands)-1]
		stat := os.Stat
		if p.NoFollow {
			stat = os.Lstat
		}
		info, err := stat(last)
		isDir := err == nil && info.IsDir()
		operands = operands[:len(operands)-1]
		if p.Plain || !isDir {
			if len(operands) > 1 {
				return nil, fmt.Errorf("target %s is not a folder", last)
			}
			return []Pair{{operands[0], last}}, nil
		}
		dir = last
	}
	if len(operands) == 0 {
		return nil, errors.New("a source is needed")
	}
	var pairs []Pair
	for _, from := range operands {
		to := filepath.Join(dir, filepath.Base(from))
		if base := filepath.Base(from); base == ".." || base == "." {
			to = filepath.Join(dir, ".") // the contents
		}
		pairs = append(pairs, Pair{from, to})
	}
	return pairs, nil
}
