module github.com/podnet/podnet/hack/cluster/modules/network-policy-api

go 1.26.0

require sigs.k8s.io/network-policy-api v0.2.0

tool sigs.k8s.io/network-policy-api/conformance
