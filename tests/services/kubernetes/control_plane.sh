# shellcheck shell=bash disable=SC2154
# The control plane of kubernetes.sh, which sources this: certificates, kubeconfigs, etcd, API server, controllers, scheduler. Authorization is by RBAC, admission
# is Kubernetes' default with NodeRestriction; everybody who speaks to the API server has a certificate of his own, and a service account its token.

# What clusters that kubeadm makes have, too.
service_network=10.96.0.0/16
first_service=10.96.0.1
domain=cluster.local

# certificate NAME SUBJECT USAGE [ALTERNATIVE-NAMES]: pki/NAME.crt and .key, signed by this cluster's authority.
certificate() {
    openssl req -x509 -config "$state/pki/openssl.cnf" -CA "$state/pki/ca.crt" -CAkey "$state/pki/ca.key" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj "$2" -addext basicConstraints=critical,CA:FALSE -addext "extendedKeyUsage=$3" ${4:+-addext "subjectAltName=$4"} \
        -keyout "$state/pki/$1.key" -out "$state/pki/$1.crt" 2>>"$state/openssl.log" || {
        tail -n 5 "$state/openssl.log"
        exit 1
    }
}

# client NAME SUBJECT: a certificate for a client, and NAME.kubeconfig, which has all in it.
client() {
    certificate "$1" "$2" clientAuth
    (
        umask 077
        cat >"$state/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
  - name: standpipe-test
    cluster:
      server: https://$address:$port
      certificate-authority-data: $(base64 -w 0 "$state/pki/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w 0 "$state/pki/$1.crt")
      client-key-data: $(base64 -w 0 "$state/pki/$1.key")
contexts:
  - name: standpipe-test
    context: { cluster: standpipe-test, user: $1 }
current-context: standpipe-test
END
    )
}

make_certificates() {
    mkdir -m 700 "$state/pki"
    printf '[req]\ndistinguished_name = name\n[name]\n' >"$state/pki/openssl.cnf"
    openssl req -x509 -config "$state/pki/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=standpipe-test \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
        -keyout "$state/pki/ca.key" -out "$state/pki/ca.crt" 2>>"$state/openssl.log"
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$state/pki/service-accounts.key" 2>>"$state/openssl.log"
    openssl pkey -in "$state/pki/service-accounts.key" -pubout -out "$state/pki/service-accounts.pub"
    certificate kube-apiserver /CN=kube-apiserver serverAuth \
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.$domain,IP:127.0.0.1,IP:$first_service,IP:$address"
    certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    client admin /O=system:masters/CN=kubernetes-admin
    client kube-controller-manager /CN=system:kube-controller-manager
    client kube-scheduler /CN=system:kube-scheduler
}

# api PATH [OPTIONS OF CURL...]: the API server's answer to the administrator.
api() {
    curl --noproxy '*' -sf --max-time 5 --cacert "$state/pki/ca.crt" --cert "$state/pki/admin.crt" --key "$state/pki/admin.key" "https://$address:$port$1" "${@:2}"
}

answers() { api "$1" -o /dev/null; }

etcd_answers() { curl --noproxy '*' -sf --max-time 5 -o /dev/null "http://127.0.0.1:$1/readyz"; }

# kubernetes NAME ARGUMENTS...: one of Kubernetes' programs as a component.
kubernetes() { component "$1" "$kubernetes" "standpipe.service=$dir/$1" "$@"; }

# A node has a network of its own with all ports free. Without one there is no address that pods could reach, and no service named kubernetes. Two equal ports are one
# in use: it starts again.
control_plane() {
    local etcd=2379 peer=2380 reconciler=lease
    kubernetes=$(program .)
    port=6443
    if [ -z "$node" ]; then
        address=127.0.0.1 reconciler=none
        etcd=$(free_port)
        peer=$(free_port)
        port=$(free_port)
    fi
    # It is not to last: nothing waits for a disk.
    kubernetes etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" --initial-cluster "default=http://127.0.0.1:$peer"
    make_certificates
    await etcd etcd_answers "$etcd"
    kubernetes kube-apiserver --etcd-servers "http://127.0.0.1:$etcd" \
        --bind-address "$address" --advertise-address "$address" --secure-port "$port" --endpoint-reconciler-type "$reconciler" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
        --client-ca-file "$state/pki/ca.crt" --tls-cert-file "$state/pki/kube-apiserver.crt" --tls-private-key-file "$state/pki/kube-apiserver.key" \
        --kubelet-client-certificate "$state/pki/kubelet-client.crt" --kubelet-client-key "$state/pki/kubelet-client.key" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer "https://kubernetes.default.svc.$domain" \
        --service-account-key-file "$state/pki/service-accounts.pub" --service-account-signing-key-file "$state/pki/service-accounts.key" \
        --service-cluster-ip-range "$service_network"
    # Both try until the API server is there, and serve nothing themselves.
    kubernetes kube-controller-manager --kubeconfig "$state/kube-controller-manager.kubeconfig" --use-service-account-credentials --leader-elect=false --secure-port 0 \
        --service-account-private-key-file "$state/pki/service-accounts.key" --root-ca-file "$state/pki/ca.crt" \
        --cluster-signing-cert-file "$state/pki/ca.crt" --cluster-signing-key-file "$state/pki/ca.key"
    kubernetes kube-scheduler --kubeconfig "$state/kube-scheduler.kubeconfig" --leader-elect=false --secure-port 0
    await "the API server" answers /readyz
    await "the service account of a new pod" answers /api/v1/namespaces/default/serviceaccounts/default
    await "the certificate of a new pod" answers /api/v1/namespaces/default/configmaps/kube-root-ca.crt
}
