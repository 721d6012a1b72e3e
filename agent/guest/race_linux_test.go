//go:build race

package guest

// smallData is a limit on data memory in which this very program just runs,
// with the race detector's own needs.
const smallData = 1 << 30
