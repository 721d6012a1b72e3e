// Package dns answers the guest's DNS queries on the host's side.
//
// The guest's resolver is the network's gateway, and the data path hands every
// query to port 53, whatever its address, to a [Proxy]: UDP messages to
// [Proxy.ServeUDP], TCP connections to [Proxy.ServeTCP]. The proxy asks the
// policy about the name, forwards a query of its own making to the host's
// resolvers, and rebuilds the answer from what it understood of it. No byte of
// a query or an answer passes through unread.
//
// For each address that it hands out it remembers the name (a pin), which is how
// the policy knows the domain of a connection; see [Proxy.Names].
//
// Where the answers come from, in this order: host.hutch.internal and localhost
// are known; names that the policy denies do not exist; the host's /etc/hosts;
// then the upstream resolvers, in turn, within one time-out. Every query is
// answered, by SERVFAIL if by nothing else.
package dns
