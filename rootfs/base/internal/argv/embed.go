package argv

import _ "embed"

// Source is the text of this package's program part.
//
//go:embed argv.go
var Source string
