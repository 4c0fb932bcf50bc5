package model

// Reasons of Problems. They are those of the API's condition Programmed, which
// this package must not import.
const (
	// ReasonNoNetwork says that there is no network to be part of.
	ReasonNoNetwork = "NoNetwork"
	// ReasonNoBlock says that the node holds no block that can be served.
	ReasonNoBlock = "NoBlock"
	// ReasonNoEndpoint says that the node lacks an address for others to send to.
	ReasonNoEndpoint = "NoEndpoint"
	// ReasonModuleMissing says that the kernel lacks a module.
	ReasonModuleMissing = "ModuleMissing"
	// ReasonKernelError says that the kernel refused a change.
	ReasonKernelError = "KernelError"
	// ReasonDegraded says that something was not done as asked.
	ReasonDegraded = "Degraded"
)
