//go:build commands

package cmds

// These programs need TLS and HTTP. What these packages do before main begins
// would cost every start of any program, so they are an executable apart.
import (
	_ "github.com/u-root/u-root/cmds/core/netcat"
	_ "github.com/u-root/u-root/cmds/core/wget"
)
