//go:build !linux

package sandbox

func hostMemory() uint64 { return 0 }
