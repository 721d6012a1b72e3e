//go:build !race

package guest

// smallData is a limit on data memory in which this very program just runs.
const smallData = 4 << 20
