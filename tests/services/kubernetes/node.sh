# shellcheck shell=bash disable=SC2154
# The node of kubernetes.sh, which sources this: containerd, kubelet, kube-proxy and CoreDNS, with the control plane in namespaces of their own for processes, mounts
# and the network. A pair of virtual interfaces is all that joins them to the machine, whose iptables, mounts and kernel settings stay as they are.

pod_network=10.244.0.0/24
pause=standpipe.test/pause:1
hidden=(/run /var/lib /var/log)

containerd_socket() { echo "$state/containerd.sock"; }

# Where the plugins of the network are: Debian's place, or everybody else's.
network_plugins() {
    local folder
    for folder in /usr/lib/cni /opt/cni/bin; do
        [ ! -x "$folder/ptp" ] || echo "$folder"
    done | head -n 1
}

require_node() {
    [ "$(uname -s)" = Linux ] || missing "Linux, for a node"
    [ "$(id -u)" -eq 0 ] || missing "root, for a node"
    local program
    for program in containerd containerd-shim-runc-v2 ctr runc; do require "$program" "$program (containerd, runc)"; done
    require ip "ip (iproute2)"
    require iptables iptables
    require unshare "unshare (util-linux)"
    [ -n "$(network_plugins)" ] || missing "the CNI plugins (containernetworking-plugins)"
    local folder used
    for folder in "${hidden[@]}"; do
        for used in "$dir" "$cache" "$services"; do
            case $(realpath "$used") in "$folder"/*) fail 2 "$used is below $folder, which a node does not see" ;; esac
        done
    done
}

# --- The machine's side: runs in the process that holds the others.

# Descriptor 7 is the machine's network. The first process of the new namespaces takes all of them with it.
enter_node() {
    exec 7</proc/self/ns/net
    component node unshare --net --mount --uts --pid --fork --kill-child=KILL --mount-proc "$self" inside "standpipe.service=$dir" "$dir" "$node"
    exec 7<&-
    wait -n || true
    cat "$state/node.log"
    exit 1
}

# Every hierarchy of control groups: one each for the controllers of version 1, or the one of version 2.
hierarchies() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo /sys/fs/cgroup
    else
        dirname /sys/fs/cgroup/*/cgroup.procs
    fi
}

# Removes what is not in a namespace, once everything in it has ended.
remove_node() {
    local link
    [ -s "$state/link" ] || return 0
    link=$(cat "$state/link")
    ! [ -e "/sys/class/net/$link" ] || ip link delete "$link" 2>/dev/null || true
    wait_until 300 remove_control_groups "$link" || echo "control groups of $link are left"
    rm -f "$state/link"
}

remove_control_groups() {
    local hierarchy left=0
    for hierarchy in $(hierarchies); do
        [ -d "$hierarchy/$1" ] || continue
        find "$hierarchy/$1" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
    done
    return "$left"
}

# --- The node's side: runs as the first process of the new namespaces.

inside() {
    trap 'exit 1' INT TERM
    join_networks
    prepare_mounts
    prepare_control_groups
    hostname standpipe-node
    cluster
}

# Two addresses that nobody has, of a range that is for tests (RFC 2544): the machine's and the node's.
join_networks() {
    local machine=/proc/self/fd/7 index link host
    ip link set lo up
    while :; do
        index=$((RANDOM % 16384))
        link=kubetest-$index
        host=198.$((18 + index / 8192)).$((index / 32 % 256)).$((index % 32 * 8 + 1))
        address=${host%.*}.$((${host##*.} + 1))
        ! nsenter --net=$machine ip -4 -o address show | grep -q " ${host%.*}\." || continue
        ip link add eth0 type veth peer name "$link" netns $machine 2>/dev/null && break
    done
    echo "$link" >"$state/link"
    echo "$host" >"$state/host"
    nsenter --net=$machine ip address add "$host/30" dev "$link"
    nsenter --net=$machine ip link set "$link" up
    exec 7<&-
    ip address add "$address/30" dev eth0
    ip link set eth0 up
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# What containerd, kubelet and the network's plugins write to fixed places stays in this namespace: the folders are empty there. The kubelet sets some of the kernel's
# settings, which are the whole machine's: it finds them set.
prepare_mounts() {
    local folder setting
    mount --make-rshared /
    for folder in "${hidden[@]}"; do mount -t tmpfs standpipe "$folder"; done
    mkdir /run/netns /run/lock "$state/settings"
    for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        folder=$state/settings/$(basename "${setting%=*}")
        echo "${setting#*=}" >"$folder"
        mount --bind "$folder" "/proc/sys/${setting%=*}"
    done
}

# One group for all pods, of the name of the link. A new cpuset has neither processors nor memory.
prepare_control_groups() {
    local hierarchy group file
    for hierarchy in $(hierarchies); do
        group=$hierarchy/$(cat "$state/link")
        mkdir "$group"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$group/$file" ] || [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$group/$file"
        done
    done
}

join_node() {
    client kubelet /O=system:nodes/CN=system:node:node
    client kube-proxy /CN=system:kube-proxy
    client coredns /CN=system:coredns
    start_containerd
    start_proxy
    start_dns
    # Without it the kubelet ends.
    await "containerd" containerd_answers
    start_kubelet
    pack_pause
    import <"$state/pause.tar" >/dev/null
    await "a node that is ready" node_is_ready
    await "services" proxy_answers
    await "names" dns_answers
}

start_containerd() {
    mkdir "$state/cni"
    cat >"$state/containerd.toml" <<END
version = 2
root = "$state/containerd"
state = "$state/containerd-run"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "$(containerd_socket)"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$(network_plugins)"
conf_dir = "$state/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
END
    cat >"$state/cni/standpipe.conflist" <<END
{
    "cniVersion": "0.4.0",
    "name": "standpipe",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": true,
            "ipam": { "type": "host-local", "dataDir": "$state/addresses", "ranges": [[{ "subnet": "$pod_network" }]], "routes": [{ "dst": "0.0.0.0/0" }] }
        },
        { "type": "portmap", "capabilities": { "portMappings": true } }
    ]
}
END
    component containerd containerd --config "$state/containerd.toml"
}

containerd_answers() { [ -S "$(containerd_socket)" ] && ctr --address "$(containerd_socket)" version >/dev/null 2>&1; }

# Nothing is evicted and no image removed for want of space.
start_kubelet() {
    cat >"$state/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication: { x509: { clientCAFile: $state/pki/ca.crt } }
containerRuntimeEndpoint: unix://$(containerd_socket)
cgroupDriver: cgroupfs
cgroupRoot: /$(cat "$state/link")
clusterDNS: [$address]
clusterDomain: $domain
resolvConf: ""
failSwapOn: false
evictionHard: { memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%" }
imageGCHighThresholdPercent: 100
podLogsDir: $state/pods
volumePluginDir: $state/volume-plugins
END
    kubernetes kubelet --config "$state/kubelet.yaml" --kubeconfig "$state/kubelet.kubeconfig" --root-dir "$state/kubelet" --hostname-override node --node-ip "$address"
}

# Only the first network of a machine may set the kernel's table of connections.
start_proxy() {
    cat >"$state/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: $state/kube-proxy.kubeconfig }
mode: iptables
clusterCIDR: $pod_network
hostnameOverride: node
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: { maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
END
    kubernetes kube-proxy --config "$state/kube-proxy.yaml"
}

# A name outside of the cluster does not exist.
start_dns() {
    cat >"$state/Corefile" <<END
$domain in-addr.arpa ip6.arpa {
    bind $address
    errors
    ready 127.0.0.1:8181
    kubernetes $domain in-addr.arpa ip6.arpa {
        kubeconfig $state/coredns.kubeconfig
        pods insecure
        ttl 30
    }
}
. {
    bind $address
    template ANY ANY {
        rcode NXDOMAIN
    }
}
END
    api /apis/rbac.authorization.k8s.io/v1/clusterrolebindings -o /dev/null -H 'Content-Type: application/yaml' --data-binary @- <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: "system:coredns" }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:coredns" }]
END
    component coredns "$(program dns)" "standpipe.service=$dir/coredns" -conf "$state/Corefile"
}

node_is_ready() {
    local node
    # The API server lays out what it sends to curl.
    node=$(api '/api/v1/nodes/node?pretty=false') || return 1
    grep -q '"type":"Ready","status":"True"' <<<"$node" && ! grep -q '"taints"' <<<"$node"
}

proxy_answers() { curl --noproxy '*' -sf --max-time 5 -o /dev/null http://127.0.0.1:10256/healthz; }

dns_answers() { curl --noproxy '*' -sf --max-time 5 -o /dev/null http://127.0.0.1:8181/ready; }

# The image of every pod's first process, in the format of `docker save`.
pack_pause() {
    local place=$state/pause architecture
    case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(uname -m) ;;
    esac
    mkdir "$place"
    cp "$(program pause)" "$place/pause"
    tar -c -C "$place" --owner 0 --group 0 -f "$place/layer.tar" pause
    cat >"$place/config.json" <<END
{"architecture":"$architecture","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:$(sha256sum "$place/layer.tar" | cut -d ' ' -f 1)"]}}
END
    echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$pause\"],\"Layers\":[\"layer.tar\"]}]" >"$place/manifest.json"
    tar -c -C "$place" -f "$state/pause.tar" manifest.json config.json layer.tar
}

# import: the archive on stdin. An image is the kubelet's once containerd has marked it.
import() {
    local output name
    output=$(ctr --address "$(containerd_socket)" --namespace k8s.io images import - 2>&1) || {
        echo "$output" >&2
        fail 1 "the archive cannot be imported"
    }
    sed -n 's/^unpacking \(.*\) (sha256:[0-9a-f]*)\.*done$/\1/p' <<<"$output" | while read -r name; do
        wait_until 300 is_managed "$name" || fail 1 "containerd does not take $name"
        echo "image=$name"
    done
}

is_managed() {
    ctr --address "$(containerd_socket)" --namespace k8s.io images list "name==$1" 2>/dev/null | grep -q 'io.cri-containerd.image=managed'
}
