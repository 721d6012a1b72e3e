//go:build !linux

package guest

// Main does nothing: the inside is always Linux.
func Main() {}
