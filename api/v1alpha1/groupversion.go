package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "podnet.dev", Version: "v1alpha1"}

// SchemeGroupVersion is GroupVersion under the name that generated code asks for.
var SchemeGroupVersion = GroupVersion

var schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme registers the kinds of this package with a scheme.
var AddToScheme = schemeBuilder.AddToScheme

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&PodNetwork{}, &PodNetworkList{},
		&NodeSubnet{}, &NodeSubnetList{},
		&NodeNetwork{}, &NodeNetworkList{},
		&RouteMode{}, &RouteModeList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
