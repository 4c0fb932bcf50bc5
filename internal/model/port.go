package model

// Port is the host end of a pod's link as a port of a bridge. It goes with the link.
type Port struct {
	Link   string
	Bridge string
}
