// Command groups prints the names of the groups of this process.
package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

func main() {
	ids, err := os.Getgroups()
	if err != nil {
		fmt.Fprintf(os.Stderr, "groups: %v\n", err)
		os.Exit(1)
	}
	ids = slices.DeleteFunc(ids, func(id int) bool { return id == os.Getegid() })
	var names []string
	for _, id := range append([]int{os.Getegid()}, ids...) {
		name := strconv.Itoa(id)
		if g, err := user.LookupGroupId(name); err == nil {
			name = g.Name
		}
		names = append(names, name)
	}
	fmt.Println(strings.Join(names, " "))
}
