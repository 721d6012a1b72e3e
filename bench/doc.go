// Package bench measures Hutch, with its peers in the same run: speeds are only
// meaningful as ratios, above all inside an emulated KVM host. SPECIFICATION.md
// says which benchmark backs which promise.
//
//	make bench
package bench
