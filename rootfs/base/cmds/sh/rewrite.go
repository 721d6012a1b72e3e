package main

import (
	"strings"
	"sync"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// The interpreter runs background jobs as goroutines that have no process ID,
// and has no exec. Both are added by rewriting a parsed program before it runs,
// into calls of commands that only the handlers here know:
//
//	cmd &     →  { job_new; { (cmd) </dev/null; job_end; } & job_started; }
//	$!        →  ${__sh_bg}, which job_started sets
//	exec cmd  →  do_exec cmd, where no other goroutine of the shell is affected
const (
	prefix     = "__sh_"
	jobNew     = prefix + "job_new"
	jobEnd     = prefix + "job_end"
	jobStarted = prefix + "job_started"
	doExec     = prefix + "do_exec"
	tailCall   = prefix + "tail_call"

	jobVar  = prefix + "job" // which job a command belongs to
	lastVar = prefix + "bg"  // value of $!
)

// functions are the names that the program defines as functions; these win over
// the commands that the shell intercepts.
type functions struct {
	sync.Mutex
	set map[string]bool
}

func (f *functions) add(name string) {
	f.Lock()
	defer f.Unlock()
	if f.set == nil {
		f.set = map[string]bool{}
	}
	f.set[name] = true
}

func (f *functions) has(name string) bool {
	f.Lock()
	defer f.Unlock()
	return f.set[name]
}

func literal(s string) *syntax.Word {
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}}
}

func callStmt(name string) *syntax.Stmt {
	return &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{literal(name)}}}
}

// rewrite prepares a program. arg0 is the value of $0, which the interpreter
// only knows for whole files.
func (s *shell) rewrite(f *syntax.File, arg0 string) {
	markExec(f.Stmts)
	var background []*syntax.Stmt
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.FuncDecl:
			if n.Name != nil {
				s.names.add(n.Name.Value)
			}
		case *syntax.ParamExp:
			if n.Param != nil && n.Param.Value == "!" && !n.Excl {
				n.Param.Value = lastVar
				n.Short = false
			}
		case *syntax.Stmt:
			if n.Background {
				background = append(background, n)
			}
		}
		return true
	})
	for _, st := range background {
		inner := *st
		inner.Background = false
		inner.Comments = nil
		job := &syntax.Stmt{Background: true, Cmd: &syntax.Block{Stmts: []*syntax.Stmt{
			{
				Cmd:    &syntax.Subshell{Stmts: []*syntax.Stmt{&inner}},
				Redirs: []*syntax.Redirect{{Op: syntax.RdrIn, Word: literal("/dev/null")}},
			},
			callStmt(jobEnd),
		}}}
		*st = syntax.Stmt{Position: st.Position, Cmd: &syntax.Block{Stmts: []*syntax.Stmt{callStmt(jobNew), job, callStmt(jobStarted)}}}
	}
}

// markExec renames exec where replacing the whole process is right: not in
// subshells, pipelines, background jobs, and not in functions, which may be
// called from any of these.
func markExec(stmts []*syntax.Stmt) {
	for _, st := range stmts {
		if st == nil || st.Background || st.Coprocess {
			continue
		}
		switch c := st.Cmd.(type) {
		case *syntax.CallExpr:
			if len(c.Args) > 1 && c.Args[0].Lit() == "exec" {
				c.Args[0] = literal(doExec)
			}
		case *syntax.Block:
			markExec(c.Stmts)
		case *syntax.IfClause:
			for ; c != nil; c = c.Else {
				markExec(c.Then)
			}
		case *syntax.WhileClause:
			markExec(c.Do)
		case *syntax.ForClause:
			markExec(c.Do)
		case *syntax.CaseClause:
			for _, item := range c.Items {
				markExec(item.Stmts)
			}
		case *syntax.BinaryCmd:
			if c.Op == syntax.AndStmt || c.Op == syntax.OrStmt {
				markExec([]*syntax.Stmt{c.X, c.Y})
			}
		}
	}
}

// rewriteTail lets a program that is a single simple command replace the shell,
// which saves a process in "sh -c 'cmd args'".
func rewriteTail(f *syntax.File) {
	if len(f.Stmts) != 1 {
		return
	}
	st := f.Stmts[0]
	c, ok := st.Cmd.(*syntax.CallExpr)
	if !ok || st.Background || st.Negated || len(c.Args) == 0 {
		return
	}
	name := c.Args[0].Lit()
	if name == "" || interp.IsBuiltin(name) || strings.HasPrefix(name, prefix) {
		return
	}
	c.Args = append([]*syntax.Word{literal(tailCall)}, c.Args...)
}

// rewriteText does the same for the text of an eval.
func (s *shell) rewriteText(text string) string {
	if !strings.Contains(text, "&") && !strings.Contains(text, "$!") {
		return text
	}
	f, err := s.parse(text, "")
	if err != nil {
		return text // eval reports it
	}
	s.rewrite(f, "")
	var b strings.Builder
	if syntax.NewPrinter().Print(&b, f) != nil {
		return text
	}
	return b.String()
}
