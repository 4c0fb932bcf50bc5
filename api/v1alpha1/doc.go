// Package v1alpha1 holds the objects by which a cluster's pod network is
// described: PodNetwork, NodeSubnet, NodeNetwork and RouteMode. It holds types,
// their validation and the names of conditions and reasons; what is done about
// them is left to the controllers and the agent.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=podnet.dev
package v1alpha1
