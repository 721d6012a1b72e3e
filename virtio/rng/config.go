package rng

// ReadConfig leaves p zero: the device has no configuration space (5.4.4).
func (d *Device) ReadConfig(uint64, []byte) {}

// WriteConfig ignores the write.
func (d *Device) WriteConfig(uint64, []byte) {}
