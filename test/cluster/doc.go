// Package cluster holds the tests that need a whole Kubernetes cluster: podnet is
// installed by Helm on the local cluster of hack/cluster, used, broken and
// uninstalled again, once for each attachment.
//
// The cluster is to be up and without podnet: `make test-cluster` brings up one of
// its own. Of a spec that fails, the folder $ARTIFACTS (bin/artifacts) shows what
// the cluster was like.
package cluster
