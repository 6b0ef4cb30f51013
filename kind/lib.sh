# What scripts/run-relay-kind-e2e.sh is made of: commands that are shown and checked, nodes in pods
# and here, waiting, what is told of a failure, and what is removed at the end. To be sourced, with
# the settings made.
# shellcheck shell=bash
# The settings are the script's, and the results.
# shellcheck disable=SC2034,SC2154

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

# --- pods

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
    until_true "$RETURN_LIMIT" "another pod of $1" another_pod "$1" "$before"
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

cut_udp() { # cut_udp <node> <node>: lets no datagram pass between two pods
    local rule one two
    one=$(k get pod "${pod[$1]}" --output 'jsonpath={.status.podIP}')
    two=$(k get pod "${pod[$2]}" --output 'jsonpath={.status.podIP}')
    for rule in "-p udp -s $one -d $two -j DROP" "-p udp -s $two -d $one -j DROP"; do
        bold "$cluster_node\$ iptables -I FORWARD $rule"
        # shellcheck disable=SC2086 # a rule is several words
        docker exec "$cluster_node" iptables -I FORWARD $rule || fail "no packet filter on the cluster's node"
        cut_off+=("$rule")
    done
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
    # The claim last: it may have the namespace's default name in it.
    sed -e "s/codewire-relay-e2e-control-plane/$cluster_node/g" -e "s/relay-test/$RELAY_NAMESPACE/g" \
        -e "s/home-dev-1/$1/g" kind/volume.yaml | k apply --filename -
}

remove_volume() {
    k delete persistentvolume "$RELAY_NAMESPACE-$1" --ignore-not-found &&
        docker exec "$cluster_node" sh -c "cd /var/lib && rm -rf 'codewire-e2e/$RELAY_NAMESPACE/$1' &&
            if [ -d 'codewire-e2e/$RELAY_NAMESPACE' ]; then rmdir -p --ignore-fail-on-non-empty 'codewire-e2e/$RELAY_NAMESPACE'; fi"
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
        image)
            docker image rm --force "$image" "$node_image"
            # A cluster that was found has got them too.
            if [ -n "${made[cluster]:-}" ] || [ -z "$cluster_node" ]; then return 0; fi
            docker exec "$cluster_node" sh -c "ctr --namespace k8s.io images ls --quiet |
                grep -E '(^|/)($image|$node_image)\$' | xargs -r ctr --namespace k8s.io images rm"
            ;;
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
  kubectl delete namespace $RELAY_NAMESPACE; kubectl delete persistentvolume --selector app.kubernetes.io/part-of=codewire-e2e
TEXT
}
