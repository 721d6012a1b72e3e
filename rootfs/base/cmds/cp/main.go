// Command cp copies files and trees.
//
//	cp [-aRrpdPLfinuvlsT] source target
//	cp [-aRrpdPLfinuvls] source... folder
//	cp [-aRrpdPLfinuvls] -t folder source...
package main

import (
	"fmt"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/filecopy"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("cp", run) }

func run(e *tool.Env, args []string) {
	options, operands, ok := e.Parse(&tool.Syntax{
		Letters: "aRrpdPLHfinuvlsTt:x",
		Long: "archive=a recursive=r preserve=p no-dereference=P dereference=L force=f interactive=i no-clobber=n update=u " +
			"verbose=v link=l symbolic-link=s no-target-directory=T target-directory=t one-file-system=x",
		Usage: "[-aRrpdPLfnuvlsT] [-t folder] source... target", Min: 1,
	}, args)
	if !ok {
		return
	}
	c := &filecopy.Copier{Fail: e.Fail}
	var place filecopy.Place
	for _, o := range options {
		switch o.Letter {
		case 'a':
			c.Recursive, c.Preserve, c.Links = true, true, true
		case 'R', 'r':
			c.Recursive = true
		case 'p':
			c.Preserve = true
		case 'd', 'P':
			c.Links, c.Follow = true, false
		case 'L':
			c.Links, c.Follow = false, true
		case 'f':
			c.Force = true
		case 'n':
			c.NoClobber = true
		case 'u':
			c.Update = true
		case 'v':
			c.Done = func(from, to string) { fmt.Fprintf(e.Out, "'%s' -> '%s'\n", from, to) }
		case 'l':
			c.Hard = true
		case 's':
			c.Sym = true
		case 'T':
			place.Plain = true
		case 't':
			place.Dir = o.Value
		}
	}
	pairs, err := place.Pairs(operands)
	if err != nil {
		e.Fail(err)
		return
	}
	for _, p := range pairs {
		c.Copy(p.From, p.To)
	}
}
