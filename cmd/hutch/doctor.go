package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Tell whether this machine can run sandboxes, and if not, why and what to do",
		Long:  "Doctor looks at what sandboxes need. It starts nothing and changes nothing.\nThe exit code is 0 when all is well and 1 otherwise.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			checks := sandbox.Doctor()
			healthy := true
			for _, k := range checks {
				healthy = healthy && k.OK
			}
			w := c.OutOrStdout()
			if asJSON {
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				if err := e.Encode(map[string]any{"ok": healthy, "checks": checks}); err != nil {
					return err
				}
			} else {
				for _, k := range checks {
					mark := "ok  "
					if !k.OK {
						mark = "FAIL"
					}
					fmt.Fprintf(w, "%s  %-9s %s\n", mark, k.Name, k.Detail)
					if k.Advice != "" {
						fmt.Fprintf(w, "%15s to mend it: %s\n", "", k.Advice)
					}
				}
			}
			if !healthy {
				return exitCode(1)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
