package proto

// Network is what the guest's network card is set up with. It is zero when
// there is none.
type Network struct {
	MAC string // of the card, such as "02:00:00:00:00:01"
	MTU uint32 // bytes; 0 leaves it as it is
	// Addresses are given to the card, each with the length of its network
	// ("10.0.0.2/30"). They are used at once, without a search for duplicates.
	Addresses []string
	// Gateways are where everything else goes, at most one of each family.
	Gateways []string
	// GatewayMAC, if known, saves the guest from asking for it.
	GatewayMAC string
	// Nameservers and Search become /etc/resolv.conf, unless there are none.
	Nameservers []string
	Search      []string
}

func (m *Network) zero() bool {
	return m.MAC == "" && m.MTU == 0 && m.GatewayMAC == "" && len(m.Addresses)+len(m.Gateways)+len(m.Nameservers)+len(m.Search) == 0
}

func (m *Network) fields(c *codec) {
	c.str(1, &m.MAC)
	number(c, 2, &m.MTU)
	c.strs(3, &m.Addresses)
	c.strs(4, &m.Gateways)
	c.str(5, &m.GatewayMAC)
	c.strs(6, &m.Nameservers)
	c.strs(7, &m.Search)
}
