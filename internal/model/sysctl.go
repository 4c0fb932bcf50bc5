package model

// Sysctl is a kernel parameter.
type Sysctl struct {
	// Key is its path below /proc/sys, such as net/ipv4/ip_forward.
	Key   string
	Value string
}
