// Package controllers holds podnet's manager: one reconciler a kind. They give
// nodes their blocks, keep what other nodes must know of a node in its
// NodeSubnets, give blocks back, and say in conditions what is the matter. Which
// blocks a node gets is left to controllers/allocation, and what a node's kernel
// makes of them to its agent.
//
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
package controllers
