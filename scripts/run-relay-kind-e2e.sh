#!/usr/bin/env bash
# Three sessions on two nodes talk through the mesh, in Kubernetes: a relay installed by its Helm
# chart, two nodes in pods, and a third node on this machine, in a cluster made by kind. Every step
# and every command is shown with its real output, and every outcome is checked: the status is 0
# only if all were as they should be. Otherwise the reason is told, with the logs of everything.
#
#   scripts/run-relay-kind-e2e.sh
#
# What can be set, with its default:
#
#   CLUSTER_NAME      codewire-relay-e2e   a cluster of that name is used if there is one, else made
#   RELAY_NAMESPACE   relay-test           likewise
#   RELAY_RELEASE     cw-relay-test        the Helm release
#   RELAY_NAME        relay-test           its objects
#   RELAY_PORT        18080                the port of this machine that leads to the relay
#   RELAY_TOKEN       dev-secret           the relay's token
#   RELAY_IMAGE_REPO  codewire-relay       the image that is built; the nodes' has -node at its end
#   RELAY_IMAGE_TAG   kind-e2e
#   RELAY_HELM_ARGS                        further arguments for `helm upgrade --install`
#   KEEP              0                    1 leaves everything up and says how to join in
#   CW                                     a finished static cw; without it one is built
#   BUSYBOX                                a static busybox, what sessions in the pods run; without it
#                                          this machine's is taken, or Debian's, or an image's
#
# Whatever was there before stays: a cluster, a namespace or a release that is found is used and
# left. What this script makes it removes, also when it fails.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }

CLUSTER_NAME=${CLUSTER_NAME:-codewire-relay-e2e}
RELAY_NAMESPACE=${RELAY_NAMESPACE:-relay-test}
RELAY_RELEASE=${RELAY_RELEASE:-cw-relay-test}
RELAY_NAME=${RELAY_NAME:-relay-test}
RELAY_PORT=${RELAY_PORT:-18080}
RELAY_TOKEN=${RELAY_TOKEN:-dev-secret}
RELAY_IMAGE_REPO=${RELAY_IMAGE_REPO:-codewire-relay}
RELAY_IMAGE_TAG=${RELAY_IMAGE_TAG:-kind-e2e}
read -ra helm_args <<<"${RELAY_HELM_ARGS:-}"
KEEP=${KEEP:-0}

image=$RELAY_IMAGE_REPO:$RELAY_IMAGE_TAG
node_image=$RELAY_IMAGE_REPO-node:$RELAY_IMAGE_TAG
# What the pods call the relay, and what this machine does.
inside=http://$RELAY_NAME-http:8080
outside=http://127.0.0.1:$RELAY_PORT
network=kind-$(date +%s)

# How long a pod may take to be ready, a path to be found, and a message to get through again after
# something was deleted; seconds.
POD_LIMIT=120
PATH_LIMIT=30
RETURN_LIMIT=10

started=$SECONDS
work=
declare -A made=() # what to remove again
cluster_node= # the cluster's node on which everything runs, a container
forwarder=
host_node=
cut_off=()    # the rules of the packet filter, as one word list each
step_number=0

# --- words

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }

step() {
    step_number=$((step_number + 1))
    printf '\n'
    bold "== $step_number. $*"
}

shown() { # the words as one would type them
    local word line=
    for word; do
        case $word in *[!A-Za-z0-9_./:=+-]* | "") word="\"$word\"" ;; esac
        line+=" $word"
    done
    printf '%s' "${line# }"
}

fail() {
    printf '\n'
    bold "FAILED: $*" >&2
    exit 1
}

# --- where things run

kube=() # how kubectl finds the cluster
k() { kubectl "${kube[@]}" "$@"; }
h() { helm --kubeconfig "$work/kubeconfig" --kube-context "kind-$CLUSTER_NAME" --namespace "$RELAY_NAMESPACE" "$@"; }

declare -A pod=() # the pods of dev-1, dev-2 and the relay, as last looked up
find_pod() { # find_pod <node>: the one that is there to stay
    local name=$1 selector=app.kubernetes.io/name=cw-node,app.kubernetes.io/instance=$1
    [ "$name" != relay ] || selector=app.kubernetes.io/name=codewire-relay,app.kubernetes.io/instance=$RELAY_RELEASE
    pod[$name]=$(k get pods --selector "$selector" --output \
        go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}' | head -n 1)
    [ -n "${pod[$name]}" ]
}
another_pod() { find_pod "$1" 2>/dev/null && [ "${pod[$1]}" != "$2" ]; } # another_pod <node> <before>

on() { # on <node> cw <arguments>: runs the command in the node's pod, or here
    local node=$1
    shift
    case $node in
        host)
            shift
            env -u CODEWIRE_RELAY_NETWORK -u CODEWIRE_HEALTH_URL CODEWIRE_HOME="$work/host" \
                CODEWIRE_NODE_NAME=host CODEWIRE_RELAY_URL="$outside" \
                CODEWIRE_RELAY_AUTH_TOKEN="$RELAY_TOKEN" "$program" "$@"
            ;;
        *) k exec "${pod[$node]}" -- "$@" ;;
    esac
}

out=
run() { # run <node> cw …: shows the command and its output, which it leaves in $out
    local node=$1 status=0
    shift
    bold "$node\$ $(shown "$@")"
    out=$(on "$node" "$@" 2>&1) || status=$?
    [ -z "$out" ] || printf '%s\n' "$out"
    return $status
}

must() { run "$@" || fail "this should have worked on $1: $(shown "${@:2}")"; }
has() { grep -qF -- "$1" <<<"$out" || fail "the output above should contain: $1"; }
lacks() { ! grep -qF -- "$1" <<<"$out" || fail "the output above should not contain: $1"; }

until_true() { # until_true <seconds> <what> <command…>: looks again and again
    local limit=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@"; do
        ((SECONDS < end)) || fail "$what did not happen within $limit s"
        sleep 0.1
    done
}

# --- the end

evidence() { # the logs of everything, as far as it is there
    local name node log
    [ -s "$work/kubeconfig" ] || return 0
    {
        echo
        echo "--- pods"
        k get pods,deployments,services,persistentvolumeclaims --output wide
        echo "--- events"
        k get events --sort-by=.lastTimestamp | tail -n 40
        for name in $(k get pods --output name); do
            echo "--- $name"
            k describe "$name" | sed -n '/^Status:/p; /^Containers:/,/^Conditions:/p' |
                grep -E 'State|Reason|Message|Exit Code|Started|Finished|Ready|Restart'
            echo "--- $name, log"
            k logs "$name" --tail=100
            k logs "$name" --tail=100 --previous 2>/dev/null | sed 's/^/(before) /'
        done
        for node in dev-1 dev-2 ${host_node:+host}; do
            echo "--- $node: cw node list; cw list"
            [ "$node" = host ] || find_pod "$node" || continue
            on "$node" cw node list
            on "$node" cw list
        done
        for log in "$work"/*.log "$work"/host/node.log; do
            [ -s "$log" ] || continue
            echo "--- ${log#"$work"/}"
            tail -n 40 "$log"
        done
    } 2>&1 | sed 's/^/    /'
}

heal() { # takes the rules out of the packet filter of the cluster's node
    local rule
    for rule in "${cut_off[@]}"; do
        # shellcheck disable=SC2086 # a rule is several words
        docker exec "$cluster_node" iptables -D FORWARD $rule || true
    done
    cut_off=()
}

make_volume() { # make_volume <claim>: a place on the disk of the cluster's node, as kind/volume.yaml has it
    docker exec "$cluster_node" mkdir -p "/var/lib/codewire-e2e/$RELAY_NAMESPACE/$1"
    sed -e "s/home-dev-1/$1/g" -e "s/relay-test/$RELAY_NAMESPACE/g" \
        -e "s/codewire-relay-e2e-control-plane/$cluster_node/g" kind/volume.yaml | k apply --filename -
}

remove_volume() {
    k delete persistentvolume "$RELAY_NAMESPACE-$1" --ignore-not-found &&
        docker exec "$cluster_node" rm -rf "/var/lib/codewire-e2e/$RELAY_NAMESPACE/$1"
}

remove() {
    case $1 in
        cluster) kind delete cluster --quiet --name "$CLUSTER_NAME" --kubeconfig "$work/kubeconfig" ;;
        namespace)
            k delete namespace "$RELAY_NAMESPACE" --wait=true &&
                for claim in "$RELAY_NAME-data" home-dev-1 home-dev-2; do remove_volume "$claim"; done
            ;;
        release)
            h uninstall "$RELAY_RELEASE" --wait && remove_volume "$RELAY_NAME-data"
            ;;
        nodes)
            k delete deployment,persistentvolumeclaim --selector app.kubernetes.io/name=cw-node --wait=true &&
                remove_volume home-dev-1 && remove_volume home-dev-2
            ;;
        image) docker image rm --force "$image" "$node_image" ;;
    esac
}

clean_up() {
    local status=$? what
    trap - EXIT INT TERM ERR
    # What is still to be done must not end half-way because a part of it is gone already.
    set +e
    if ((status != 0)) && [ -n "$work" ]; then
        evidence >&2
    fi
    ((${#cut_off[@]} == 0)) || heal >/dev/null 2>&1
    if [ "$KEEP" = 1 ]; then
        join_in
        exit "$status"
    fi
    [ -z "$host_node" ] || on host cw stop --grace 1 >/dev/null 2>&1
    [ -z "$forwarder" ] || { kill "$forwarder" && wait "$forwarder"; } 2>/dev/null
    # With the namespace goes what is in it, and with the cluster the namespace.
    [ -z "${made[namespace]:-}${made[cluster]:-}" ] || unset 'made[nodes]' 'made[release]'
    [ -z "${made[cluster]:-}" ] || unset 'made[namespace]'
    for what in nodes release namespace cluster image; do
        [ -n "${made[$what]:-}" ] || continue
        remove "$what" >"$work/remove.out" 2>&1 ||
            { echo "could not remove the $what:"; cat "$work/remove.out"; } >&2
    done
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}

join_in() { # how to go on with what is left up, and how to remove it
    cat <<TEXT

KEEP=1: everything is still up. Join in:

  export KUBECONFIG=$work/kubeconfig
  kubectl --namespace $RELAY_NAMESPACE exec --stdin --tty deployment/dev-1 -- cw attach planner
  CODEWIRE_HOME=$work/host $program node list      # by the port-forward, process ${forwarder:-none}

Remove it:

  CODEWIRE_HOME=$work/host $program stop; kill ${forwarder:-}; rm -r $work
  kind delete cluster --name $CLUSTER_NAME         # or, in a cluster of yours:
  kubectl delete namespace $RELAY_NAMESPACE
TEXT
}

# --- before anything is done

missing=()
for tool in docker kind kubectl helm readelf script sed; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ -n "${CW:-}" ] || command -v cargo >/dev/null || missing+=("cargo (or CW, a finished static cw)")

is_static() { [ -x "$1" ] && ! readelf --program-headers --wide "$1" 2>/dev/null | grep -q INTERP && "$1" true; }

busybox_from=
if [ -n "${BUSYBOX:-}" ]; then
    is_static "$BUSYBOX" || missing+=("BUSYBOX: $BUSYBOX is no static busybox of this machine")
    busybox_from=$BUSYBOX
elif busybox=$(command -v busybox) && is_static "$busybox"; then
    busybox_from=$busybox
elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    busybox_from=debian
else
    busybox_from=image
fi
if ((${#missing[@]})); then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
fi
docker info >/dev/null 2>&1 || { echo "missing: a container engine; 'docker info' says: $(docker info 2>&1 | tail -n 1)" >&2; exit 1; }
if (exec 3<>"/dev/tcp/127.0.0.1/$RELAY_PORT") 2>/dev/null; then
    echo "port $RELAY_PORT of this machine is taken; set RELAY_PORT to another" >&2
    exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/cw-kind.XXXXXX")
kube=(--kubeconfig "$work/kubeconfig" --context "kind-$CLUSTER_NAME" --namespace "$RELAY_NAMESPACE")
trap clean_up EXIT
trap 'printf "\nFAILED in line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM
export DOCKER_BUILDKIT=1

# --- the image

step "builds the image"
program=$PWD/target/static/cw
if [ -n "${CW:-}" ]; then
    mkdir -p target/static
    # It may be running.
    [ "$(readlink -f "$CW")" = "$program" ] || { cp "$CW" "$program.new" && mv "$program.new" "$program"; }
else
    scripts/build-static "$program"
fi
case $busybox_from in
    debian)
        (cd "$work" && apt-get -qq download busybox-static) 2>"$work/busybox.log" ||
            fail "a static busybox: apt-get download busybox-static failed: $(tail -n 1 "$work/busybox.log")"
        dpkg-deb --extract "$work"/busybox-static_*.deb "$work/busybox.d"
        busybox_from=$(find "$work/busybox.d" -type f -path '*bin/busybox')
        ;;
    image)
        docker pull --quiet busybox:musl >"$work/busybox.log" 2>&1 ||
            fail "a static busybox: install Debian's busybox-static or set BUSYBOX; docker pull says: $(tail -n 1 "$work/busybox.log")"
        container=$(docker create busybox:musl)
        docker cp --quiet "$container:/bin/busybox" "$work/busybox.bin"
        docker rm "$container" >/dev/null
        busybox_from=$work/busybox.bin
        ;;
esac
cp "$busybox_from" target/static/busybox
docker image inspect "$image" >/dev/null 2>&1 || made[image]=1
docker build --quiet --file deploy/Dockerfile --tag "$image" . >"$work/build.log" 2>&1 ||
    fail "docker build: $(cat "$work/build.log")"
docker build --quiet --file kind/Dockerfile --build-arg "IMAGE=$image" --tag "$node_image" . >"$work/build.log" 2>&1 ||
    fail "docker build: $(cat "$work/build.log")"
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -F "$RELAY_IMAGE_REPO" || true

# --- the cluster

if kind get clusters 2>/dev/null | grep -qx -- "$CLUSTER_NAME"; then
    step "uses the cluster $CLUSTER_NAME"
    kind get kubeconfig --name "$CLUSTER_NAME" >"$work/kubeconfig"
else
    step "makes the cluster $CLUSTER_NAME"
    made[cluster]=1
    # The user's own kubeconfig stays as it is.
    kind create cluster --quiet --name "$CLUSTER_NAME" --config kind/cluster.yaml \
        --kubeconfig "$work/kubeconfig" --wait 120s || fail "kind create cluster failed"
fi
# The first that takes pods.
cluster_node=$(k get nodes --output custom-columns='NAME:.metadata.name,TAINTS:.spec.taints[*].effect' --no-headers |
    grep -v NoSchedule | sed -n '1s/ .*//p')
[ -n "$cluster_node" ] || fail "the cluster has no node that takes pods"
k get nodes
# kind does not wait for names to be resolved.
k --namespace kube-system rollout status deployment/coredns --timeout="${POD_LIMIT}s" || fail "the cluster's name service does not come up"
kind load docker-image --quiet --name "$CLUSTER_NAME" "$image" "$node_image" 2>"$work/load.log" ||
    kind load docker-image --name "$CLUSTER_NAME" "$image" "$node_image" || fail "kind load docker-image failed"

# --- the relay

broken() { # broken <deployment>: says why it will not become ready, if so
    # shellcheck disable=SC2016 # a variable of the template
    k get pods --output go-template='{{range .items}}{{$name := .metadata.name}}{{range .status.containerStatuses}}{{with .state.waiting}}{{$name}} {{.reason}}{{"\n"}}{{end}}{{end}}{{end}}' 2>/dev/null |
        grep -E "^$1-[^ ]* (CrashLoopBackOff|ErrImage|ImagePull|Create.*Error|InvalidImage|RunContainerError)"
}

rolled_out() { # rolled_out <deployment>: one pod, of the newest kind, ready
    local generation observed pods
    read -r generation observed pods < <(k get deployment "$1" --output \
        jsonpath='{.metadata.generation} {.status.observedGeneration} {.status.replicas}{.status.updatedReplicas}{.status.readyReplicas}' 2>/dev/null; echo)
    [ "$generation $pods" = "$observed 111" ]
}

ready() { # ready <deployment>: waits until it is, or until it cannot become so
    local end=$((SECONDS + POD_LIMIT)) why
    until rolled_out "$1"; do
        if why=$(broken "$1"); then
            fail "a pod does not start: $why; it said: $(k logs "${why%% *}" --tail=3 2>&1 || true)"
        fi
        ((SECONDS < end)) || fail "$1 was not ready within $POD_LIMIT s"
        sleep 0.2
    done
}

step "installs the relay by Helm"
if ! k get namespace "$RELAY_NAMESPACE" >/dev/null 2>&1; then
    made[namespace]=1
    sed "s/name: relay-test/name: $RELAY_NAMESPACE/" kind/namespace.yaml | k apply --filename -
fi
# The service account of a new namespace comes a moment later.
until_true 30 "the namespace's service account" k get serviceaccount default --output name
if ! h status "$RELAY_RELEASE" >/dev/null 2>&1; then
    made[release]=1
    remove_volume "$RELAY_NAME-data" >/dev/null
fi
make_volume "$RELAY_NAME-data"
# By a file, as everything secret.
umask 077
cat >"$work/values.yaml" <<VALUES
fullnameOverride: "$RELAY_NAME"
image:
  repository: "$RELAY_IMAGE_REPO"
  tag: "$RELAY_IMAGE_TAG"
relay:
  baseURL: "$outside"
  authToken: "$RELAY_TOKEN"
persistence:
  storageClass: codewire-e2e
VALUES
bold "$ helm upgrade --install $RELAY_RELEASE deploy/helm/codewire-relay --values … ${helm_args[*]}"
h upgrade --install "$RELAY_RELEASE" deploy/helm/codewire-relay --values "$work/values.yaml" "${helm_args[@]}" \
    >"$work/helm.out" 2>&1 || fail "helm: $(cat "$work/helm.out")"
cat "$work/helm.out"
ready "$RELAY_NAME"
find_pod relay
h test "$RELAY_RELEASE" || fail "helm test failed"

step "finds the token in no command line of the cluster's node"
# The pattern comes on standard input, or it would find itself.
# shellcheck disable=SC2016 # the variables are for the shell over there
found=$(printf '%s\n' "$RELAY_TOKEN" | docker exec --interactive "$cluster_node" sh -c \
    'cat >/tmp/cw-e2e-pattern; for f in /proc/[0-9]*/cmdline; do tr "\0" " " <"$f" 2>/dev/null | grep -F -f /tmp/cw-e2e-pattern; done; rm /tmp/cw-e2e-pattern' || true)
[ -z "$found" ] || fail "the token stands in a command line: $found"
echo "none"

step "forwards port $RELAY_PORT to it"
(
    # A port-forward ends with the pod that it leads to.
    set +e
    trap - ERR
    child=
    trap 'kill $child 2>/dev/null; exit 0' TERM
    while :; do
        kubectl "${kube[@]}" port-forward "service/$RELAY_NAME-http" "$RELAY_PORT:8080" >>"$work/port-forward.log" 2>&1 &
        child=$!
        wait $child
        sleep 0.2
    done
) &
forwarder=$!
answers() { on host cw health --url "$outside" >/dev/null 2>&1; }
until_true 30 "an answer at $outside" answers
must host cw health --url "$outside/readyz"

step "makes a network with the token, and without it makes none"
bold "host\$ CODEWIRE_RELAY_AUTH_TOKEN=wrong cw network list"
out=$(RELAY_TOKEN=wrong-$RELAY_TOKEN on host cw network list 2>&1) && fail "the relay takes any token"
echo "$out"
has unauthorized
run host cw network create "$network" ||
    fail "the relay does not take RELAY_TOKEN: it was installed with another, or has been changed since"

# --- the nodes

step "starts two nodes in pods"
if k get deployment dev-1 >/dev/null 2>&1; then
    # Left by a run with KEEP=1: they are in a network of that run.
    remove nodes >/dev/null
fi
made[nodes]=1
for node in dev-1 dev-2; do
    remove_volume "home-$node" >/dev/null
    make_volume "home-$node"
    sed -e "s/dev-1/$node/g" -e "s|image: .*|image: $node_image|" kind/node.yaml | k apply --filename -
done
for node in dev-1 dev-2; do
    ready "$node"
    find_pod "$node"
done
k get pods --output wide

step "enrols them by invite, and a third node on this machine"
invite() { on host cw network invite --mine 2>"$work/invite.log"; }
enrol() { # enrol <node> <relay's URL>
    local token
    bold "host\$ cw network invite --mine"
    token=$(invite) || fail "no invite: $(cat "$work/invite.log")"
    echo "$token"
    must "$1" cw network join --relay-url "$2" "$token"
    has "Joined network \"$network\" as \"$1\""
}
enrol dev-1 "$inside"
enrol dev-2 "$inside"
host_node=1
enrol host "$outside"

online() { # online <here> <there>: whether the one sees the other
    on "$1" cw node list 2>/dev/null | grep -E "^$2 " | grep -q online
}
path() { # path <here> <there> <word>
    on "$1" cw node list 2>/dev/null | grep -E "^$2 " | grep -q " $3"
}

# --- the scenario

step "launches three sessions, two of them from the other node"
until_true 10 "dev-2 in the network" online dev-1 dev-2
until_true 10 "dev-1 in the network" online dev-2 dev-1
must dev-1 cw launch planner -- sh
must dev-1 cw launch dev-2 --name coder -- sh
must dev-1 cw launch dev-2 --name reviewer -- sh
must dev-1 cw list
has planner
lacks coder
must dev-1 cw list dev-2
has coder
has reviewer

step "finds a direct path between the pods"
until_true "$PATH_LIMIT" "a direct path from dev-1 to dev-2" path dev-1 dev-2 direct
until_true "$PATH_LIMIT" "a direct path from dev-2 to dev-1" path dev-2 dev-1 direct
must dev-1 cw node list
must dev-2 cw node list

step "sends a message"
must dev-1 cw msg -f planner dev-2:coder "hello from planner"
must dev-2 cw inbox coder
has "dev-1:planner → coder: hello from planner"
must dev-1 cw inbox dev-2:coder
has "dev-1:planner → coder: hello from planner"

step "listens"
bold "dev-1\$ cw listen --session dev-2:coder &"
# Ending kubectl does not end the command in the pod; its time does.
kubectl "${kube[@]}" exec "${pod[dev-1]}" -- timeout 60 cw listen --session dev-2:coder >"$work/listen.out" 2>"$work/listen.err" &
listener=$!
until_true 10 "listening" grep -q listening "$work/listen.err"
must dev-1 cw msg -f planner dev-2:coder "listen-check"
until_true 10 "the message heard" grep -qF '[dev-1:planner → coder] listen-check' "$work/listen.out"
cat "$work/listen.out"
kill "$listener" 2>/dev/null || true
wait "$listener" 2>/dev/null || true

ask() { # ask <node> <session> <reply>: a request to coder, which reviewer may not answer
    local node=$1 session=$2 reply=$3 requester request
    bold "$node\$ cw request -f $session dev-2:coder \"ready for review?\" &"
    on "$node" cw request -f "$session" dev-2:coder "ready for review?" >"$work/request.out" 2>&1 &
    requester=$!
    pending() { on dev-2 cw inbox coder 2>/dev/null | grep -q 'REQUEST.*pending'; }
    until_true 10 "the request in coder's inbox" pending
    must dev-2 cw inbox coder
    has "$node:$session"
    request=$(grep -o 'req_[A-Za-z0-9_-]*' <<<"$out" | tail -n 1)
    run dev-2 cw reply "$request" "looks fine to me" -f reviewer && fail "reviewer may not answer for coder"
    has "may only be replied to by session"
    must dev-2 cw reply "$request" "$reply" -f coder
    wait "$requester" || fail "the request failed: $(cat "$work/request.out")"
    cat "$work/request.out"
    grep -qF "[reply from coder] $reply" "$work/request.out" || fail "another reply was due"
}

step "asks, and takes the answer from nobody but who was asked"
ask dev-1 planner approved
must dev-2 cw inbox reviewer
lacks "hello from planner"
lacks "ready for review"

step "types into a session and reads it"
must dev-1 cw send dev-2:coder "echo said-\$((40 + 1))"
said() { on dev-1 cw logs dev-2:coder 2>/dev/null | grep -q said-41; }
until_true 10 "the output in the log" said
must dev-1 cw logs dev-2:coder

attach() { # attach <node> <word>: takes the session over with a terminal, types, and lets go
    local node=$1 word=$2 command
    case $node in
        host)
            command="env CODEWIRE_HOME='$work/host' '$program' attach dev-2:coder"
            ;;
        *)
            command="kubectl ${kube[*]@Q} exec --stdin --tty '${pod[$node]}' -- cw attach dev-2:coder"
            ;;
    esac
    bold "$node\$ cw attach dev-2:coder"
    rm -f "$work/keys" "$work/screen"
    mkfifo "$work/keys"
    script -qfec "$command" "$work/screen" <"$work/keys" >/dev/null 2>&1 &
    local attached=$!
    exec 9>"$work/keys"
    until_true 20 "the attachment" grep -q 'attached to' "$work/screen"
    # shellcheck disable=SC2016 # the shell over there is to add
    printf 'echo %s-$((40 + 2))\r' "$word" >&9
    until_true 10 "the echo" grep -q "$word-42" "$work/screen"
    printf '\002d' >&9
    until_true 10 "letting go" grep -q 'detached from' "$work/screen"
    exec 9>&-
    wait "$attached" || fail "attach ended with an error"
    # What the terminal showed, without the sequences that draw it.
    sed -e 's/\x1b\[[0-9;?<>]*[a-zA-Z]//g' -e 's/\x1b[()][A-Z0-9]//g' -e 's/\x1b[>=]//g' -e 's/[\r\x0f]//g' \
        -e '/^Script /d' "$work/screen" | tail -n 8
}

step "attaches with a terminal"
attach dev-1 typed

step "does the same from this machine, by the port-forward"
until_true 10 "dev-2 seen from here" online host dev-2
must host cw node list
must host cw list dev-2
has coder
must host cw launch operator -- cat
must host cw msg -f operator dev-2:coder "hello from outside"
must dev-2 cw inbox coder
has "host:operator → coder: hello from outside"
ask host operator "yes, from outside too"
must dev-1 cw launch host --name visitor -- cat
must host cw list
has visitor
attach host outside
must host cw logs dev-2:coder --tail 3
has outside-42

step "cuts UDP between the pods: packets go by the relay"
address() { k get pod "${pod[$1]}" --output 'jsonpath={.status.podIP}'; }
one=$(address dev-1)
two=$(address dev-2)
for rule in "-p udp -s $one -d $two -j DROP" "-p udp -s $two -d $one -j DROP"; do
    bold "$cluster_node\$ iptables -I FORWARD $rule"
    # shellcheck disable=SC2086 # a rule is several words
    docker exec "$cluster_node" iptables -I FORWARD $rule || fail "no packet filter on the cluster's node"
    cut_off+=("$rule")
done
must dev-1 cw msg -f planner dev-2:coder "sent when the path had just been cut"
until_true "$PATH_LIMIT" "the relayed path from dev-1 to dev-2" path dev-1 dev-2 relayed
until_true "$PATH_LIMIT" "the relayed path from dev-2 to dev-1" path dev-2 dev-1 relayed
must dev-1 cw node list
must dev-1 cw msg -f planner dev-2:coder "sent by the relay"
must dev-2 cw inbox coder
has "when the path had just been cut"
has "sent by the relay"

step "heals it: the path is direct again"
heal
until_true "$PATH_LIMIT" "a direct path from dev-1 to dev-2" path dev-1 dev-2 direct
until_true "$PATH_LIMIT" "a direct path from dev-2 to dev-1" path dev-2 dev-1 direct
must dev-1 cw node list

now() { local t; t=$(date +%s%N); echo $((t / 1000000)); }
gets_through() { # gets_through <node> <session> <to> <body>
    on "$1" cw msg -f "$2" "$3" "$4" >"$work/msg.out" 2>&1
}
back() { # back <what> <since, ms> <command…>: at the latest RETURN_LIMIT after
    local what=$1 since=$2 took
    shift 2
    until "$@"; do
        took=$(($(now) - since))
        ((took < RETURN_LIMIT * 1000)) || fail "$what: not within $RETURN_LIMIT s: $(cat "$work/msg.out")"
        sleep 0.1
    done
    took=$(($(now) - since))
    printf '%s: %d.%d s after the deletion\n' "$what" $((took / 1000)) $((took % 1000 / 100))
    ((took < RETURN_LIMIT * 1000)) || fail "$what: not within $RETURN_LIMIT s"
}
deletes() { # deletes <node>: its pod, and waits until there is another
    local before=${pod[$1]}
    since=$(now)
    bold "$ kubectl delete pod $before"
    k delete pod "$before" --wait=false
    until_true "$POD_LIMIT" "another pod of $1" another_pod "$1" "$before"
}

step "deletes the relay's pod"
deletes relay
back "a message from pod to pod" "$since" gets_through dev-1 planner dev-2:coder "while the relay is away"
back "a message by the new relay, from outside" "$since" gets_through host operator dev-2:coder "by the new relay"
ready "$RELAY_NAME"
until_true "$RETURN_LIMIT" "dev-2 online for dev-1" online dev-1 dev-2
until_true "$RETURN_LIMIT" "dev-1 online for dev-2" online dev-2 dev-1
must dev-2 cw inbox coder
has "while the relay is away"
has "by the new relay"
must dev-1 cw list dev-2
has running

step "deletes the pod of dev-2"
deletes dev-2
relaunched() {
    on dev-1 cw launch dev-2 --name tester -- sh >"$work/msg.out" 2>&1 ||
        # It may have been done although the answer got lost.
        grep -q name_taken "$work/msg.out"
}
back "a session on dev-2 again" "$since" relaunched
back "a message to it" "$since" gets_through dev-1 planner dev-2:tester "to the new pod"
ready dev-2
must dev-2 cw inbox tester
has "dev-1:planner → tester: to the new pod"
# What the home keeps has come back with it.
must dev-1 cw inbox dev-2:coder
has "hello from planner"
must dev-1 cw list dev-2 --status all
has coder
until_true "$PATH_LIMIT" "a direct path from dev-1 to dev-2" path dev-1 dev-2 direct
must dev-1 cw node list

step "kills a session on the other node"
must dev-1 cw kill dev-2:tester
must dev-1 cw status dev-2:tester
has killed

printf '\n'
bold "all as it should be, in $((SECONDS - started)) s"
