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

# shellcheck source=../kind/lib.sh
. kind/lib.sh

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
if ! answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
    echo "missing: a container engine; docker says: $(tail -n 1 <<<"$answer")" >&2
    exit 1
fi
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
        (cd "$work" && apt-get -qq download busybox-static) 2>"$work/busybox.out" ||
            fail "a static busybox: apt-get download busybox-static failed: $(tail -n 1 "$work/busybox.out")"
        dpkg-deb --extract "$work"/busybox-static_*.deb "$work/busybox.d"
        busybox_from=$(find "$work/busybox.d" -type f -path '*bin/busybox')
        ;;
    image)
        docker pull --quiet busybox:musl >"$work/busybox.out" 2>&1 ||
            fail "a static busybox: install Debian's busybox-static or set BUSYBOX; docker pull says: $(tail -n 1 "$work/busybox.out")"
        container=$(docker create busybox:musl)
        docker cp --quiet "$container:/bin/busybox" "$work/busybox.bin"
        docker rm "$container" >/dev/null
        busybox_from=$work/busybox.bin
        ;;
esac
cp "$busybox_from" target/static/busybox
docker image inspect "$image" >/dev/null 2>&1 || made[image]=1
docker build --quiet --file deploy/Dockerfile --tag "$image" . >"$work/build.out" 2>&1 ||
    fail "docker build: $(cat "$work/build.out")"
docker build --quiet --file kind/Dockerfile --build-arg "IMAGE=$image" --tag "$node_image" . >"$work/build.out" 2>&1 ||
    fail "docker build: $(cat "$work/build.out")"
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
kind load docker-image --quiet --name "$CLUSTER_NAME" "$image" "$node_image" 2>"$work/load.out" ||
    kind load docker-image --name "$CLUSTER_NAME" "$image" "$node_image" || fail "kind load docker-image failed"

# --- the relay

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
persistence:
  storageClass: codewire-e2e
VALUES
printf '%s' "$RELAY_TOKEN" >"$work/token"
bold "$ helm upgrade --install $RELAY_RELEASE deploy/helm/codewire-relay --values … --set-file relay.authToken=… ${helm_args[*]}"
h upgrade --install "$RELAY_RELEASE" deploy/helm/codewire-relay --values "$work/values.yaml" \
    --set-file "relay.authToken=$work/token" "${helm_args[@]}" >"$work/helm.out" 2>&1 || fail "helm: $(cat "$work/helm.out")"
cat "$work/helm.out"
ready "$RELAY_NAME"
find_pod relay
h test "$RELAY_RELEASE" || fail "helm test failed"

step "finds the token in no command line of the relay"
# shellcheck disable=SC2016 # the variables are for the shell over there
lines=$(docker exec "$cluster_node" sh -c 'for f in /proc/[0-9]*/cmdline; do tr "\0" " " <"$f"; echo; done 2>/dev/null' | grep -- '--base-url')
echo "$lines"
! grep -qF -- "$RELAY_TOKEN" <<<"$lines" || fail "the token stands in the command line above"

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
invite() { on host cw network invite --mine 2>"$work/invite.err"; }
enrol() { # enrol <node> <relay's URL>
    local token
    bold "host\$ cw network invite --mine"
    token=$(invite) || fail "no invite: $(cat "$work/invite.err")"
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
cut_udp dev-1 dev-2
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
