package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hutchvm/hutch/sandbox"
)

func Example() {
	ctx := context.Background()
	sb, err := sandbox.Create(ctx, "demo", sandbox.WithEphemeral(), sandbox.WithMemory(256<<20))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sb.Close()

	out, err := sb.Exec(ctx, "uname", []string{"-sn"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(out.Stdout())
	// Output: Linux demo
}

func ExampleSandbox_Command() {
	ctx := context.Background()
	sb, err := sandbox.Create(ctx, "command", sandbox.WithEphemeral())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sb.Close()

	cmd := sb.Command(ctx, "sh", "-c", "tr a-z A-Z; exit 3")
	cmd.Stdin, cmd.Stdout = strings.NewReader("hello\n"), os.Stdout
	err = cmd.Run()
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		fmt.Println(exit)
	}
	// Output:
	// HELLO
	// exit status 3
}

func ExampleSandbox_ExecStream() {
	ctx := context.Background()
	sb, err := sandbox.Create(ctx, "stream", sandbox.WithEphemeral())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sb.Close()

	h, err := sb.ExecStream(ctx, "seq", []string{"3"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()
	out, err := h.Collect(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(out.Stdout())
	// Output:
	// 1
	// 2
	// 3
}

// A sandbox that is kept, and started again later, in this process or another.
func ExampleStart() {
	ctx := context.Background()
	sb, err := sandbox.Create(ctx, "notebook", sandbox.WithReplace())
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := sb.Shell(ctx, "echo remembered > /note"); err != nil {
		fmt.Println(err)
	}
	if err := sb.Stop(ctx); err != nil {
		fmt.Println(err)
	}

	if sb, err = sandbox.Start(ctx, "notebook"); err != nil {
		fmt.Println(err)
		return
	}
	out, err := sb.Exec(ctx, "cat", []string{"/note"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(out.Stdout())
	if err := errors.Join(sb.Close(), sandbox.Remove(ctx, "notebook")); err != nil {
		fmt.Println(err)
	}
	// Output: remembered
}
