// Command whoami prints the name of the effective user.
package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

func main() {
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		fmt.Fprintf(os.Stderr, "whoami: no name for user ID %d\n", os.Geteuid())
		os.Exit(1)
	}
	fmt.Println(u.Username)
}
