# shellcheck shell=bash
# shellcheck disable=SC2154 # "here", "repo" and "state" are set by the script that sources this file.
# Keys, certificates and kubeconfig files, new with every cluster.

pki=$state/pki
# The first address of each range of services is the API server's.
service_v4=10.96.0.1
service_v6=fd00:10:96::1

# make_ca NAME COMMON-NAME
make_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign \
		-keyout "$pki/$1.key" -out "$pki/$1.crt" 2>/dev/null
}

# make_cert CA NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES] signs for both ends of TLS: what may connect is decided by the
# subject and the authority, and etcd's gateway to itself uses its server certificate as a client.
make_cert() {
	local ca=$1 name=$2 subject=$3 names=${4:-}
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" \
		-keyout "$pki/$name.key" -out "$pki/$name.csr" 2>/dev/null
	openssl x509 -req -in "$pki/$name.csr" -CA "$pki/$ca.crt" -CAkey "$pki/$ca.key" -days 3650 \
		-set_serial "0x$(openssl rand -hex 16)" -out "$pki/$name.crt" 2>/dev/null -extfile <(
			say "basicConstraints=critical,CA:FALSE"
			say "keyUsage=critical,digitalSignature"
			say "extendedKeyUsage=serverAuth,clientAuth"
			[ -z "$names" ] || say "subjectAltName=$names"
		)
	rm "$pki/$name.csr"
}

make_pki() {
	local node names
	mkdir -m 0700 "$pki"
	make_ca ca kubernetes-ca
	make_ca etcd-ca etcd-ca
	# Requests that the API server passes on to an aggregated one carry a certificate of this authority.
	make_ca front-proxy-ca front-proxy-ca
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$pki/sa.key" 2>/dev/null
	openssl pkey -in "$pki/sa.key" -pubout -out "$pki/sa.pub"

	names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
	names+=,DNS:localhost,DNS:node1,IP:127.0.0.1,IP:::1,IP:$service_v4,IP:$service_v6
	names+=,IP:$(node_v4 node1),IP:$(node_v6 node1)
	make_cert ca apiserver /CN=kube-apiserver "$names"
	make_cert ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
	make_cert etcd-ca etcd-server /CN=etcd DNS:localhost,IP:127.0.0.1
	make_cert etcd-ca etcd-client /CN=kube-apiserver
	make_cert front-proxy-ca front-proxy-client /CN=front-proxy-client
	make_cert ca admin /O=system:masters/CN=kubernetes-admin
	make_cert ca controller-manager /CN=system:kube-controller-manager
	make_cert ca scheduler /CN=system:kube-scheduler
	make_cert ca proxy /CN=system:kube-proxy
	for node in $(node_names); do
		make_kubelet_cert "$node" "$(node_v4 "$node"),$(node_v6 "$node")"
	done
}

# make_kubelet_cert NODE ADDRESSES
make_kubelet_cert() {
	make_cert ca "kubelet-$1" "/O=system:nodes/CN=system:node:$1" "DNS:$1,IP:${2//,/,IP:}"
}

# make_kubeconfig FILE SERVER CERTIFICATE
make_kubeconfig() {
	# Renamed into place, with its mode: it holds a key.
	(umask 077 && cat >"$1.partial" <<-CONFIG) && mv -f "$1.partial" "$1"
		apiVersion: v1
		kind: Config
		current-context: $CLUSTER_NAME
		clusters:
		- name: $CLUSTER_NAME
		  cluster:
		    server: $2
		    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
		contexts:
		- name: $CLUSTER_NAME
		  context:
		    cluster: $CLUSTER_NAME
		    user: $3
		users:
		- name: $3
		  user:
		    client-certificate-data: $(base64 -w0 "$pki/$3.crt")
		    client-key-data: $(base64 -w0 "$pki/$3.key")
	CONFIG
}
