// Package network measures the network of a guest against its peers, QEMU's
// user-mode network and passt, in the same run: the same kernel, the same first
// process, the same traffic.
//
// The package's test binary is also the guest's first process: it sets the card
// up, connects to the test and does what it is told. The test measures.
//
//	go test -exec "bin/kvmhost --" ./bench/network -run '^$' -bench .
package network
