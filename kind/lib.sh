# What scripts/run-relay-kind-e2e.sh and kind/nodes are made of: what is shown, the cluster and its
# pods, what is told of a failure, and what is removed at the end. To be sourced, with the settings
# made and KUBECONFIG leading to the cluster.
# shellcheck shell=bash
# The settings are the script's, and the results.
# shellcheck disable=SC2034,SC2154

# How long a pod may take to be ready; seconds.
POD_LIMIT=120

started=$SECONDS
work=
declare -A made=() # what to remove again
cluster_node=      # the cluster's node on which everything runs, a container
forwarder=
step_number=0

# --- words

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }

step() {
    step_number=$((step_number + 1))
    printf '\n'
    bold "== $step_number. $*"
}

fail() {
    printf '\n'
    bold "FAILED: $*" >&2
    exit 1
}

# --- where things run

k() { kubectl --context "kind-$CLUSTER_NAME" --namespace "$RELAY_NAMESPACE" "$@"; }
h() { helm --kube-context "kind-$CLUSTER_NAME" --namespace "$RELAY_NAMESPACE" "$@"; }

find_cluster_node() { # the first that takes pods, which a new cluster has a moment later
    until_true "$POD_LIMIT" "a node of the cluster that takes pods" takes_pods
}

takes_pods() {
    cluster_node=$(k get nodes --output custom-columns='NAME:.metadata.name,TAINTS:.spec.taints[*].effect' --no-headers |
        sed -n '/NoSchedule/!{s/ .*//p;q;}')
    [ -n "$cluster_node" ]
}

host() { # host cw <arguments>: as the relay's administrator, on this machine
    shift
    env -u CODEWIRE_RELAY_NETWORK -u CODEWIRE_HEALTH_URL CODEWIRE_HOME="$work/host" \
        CODEWIRE_RELAY_URL="$outside" CODEWIRE_RELAY_AUTH_TOKEN="$RELAY_TOKEN" "$program" "$@"
}

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

make_volume() { # make_volume <claim>: a place on the disk of the cluster's node, as kind/volume.yaml has it
    docker exec "$cluster_node" mkdir -p "/var/lib/codewire-e2e/$RELAY_NAMESPACE/$1"
    # The claim last: it may have the namespace's default name in it.
    sed -e "s/codewire-relay-e2e-control-plane/$cluster_node/g" -e "s/relay-test/$RELAY_NAMESPACE/g" \
        -e "s/home-dev-1/$1/g" kind/volume.yaml | k apply --filename -
}

remove_volume() { # also when a pod that is being killed still writes to it
    k delete persistentvolume "$RELAY_NAMESPACE-$1" --ignore-not-found &&
        docker exec "$cluster_node" sh -c "cd /var/lib && for try in 1 2 3; do rm -rf 'codewire-e2e/$RELAY_NAMESPACE/$1' && break; sleep 1; done &&
            if [ -d 'codewire-e2e/$RELAY_NAMESPACE' ]; then rmdir -p --ignore-fail-on-non-empty 'codewire-e2e/$RELAY_NAMESPACE'; fi"
}

# --- the end

evidence() { # the logs of everything, as far as it is there; those of the nodes come from the scenario
    local name log
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
        for log in "$work"/*.log; do
            [ -s "$log" ] || continue
            echo "--- ${log#"$work"/}"
            uniq "$log" | tail -n 40
        done
    } 2>&1 | sed 's/^/    /'
}

remove() {
    case $1 in
        cluster) kind delete cluster --quiet --name "$CLUSTER_NAME" ;;
        namespace)
            k delete namespace "$RELAY_NAMESPACE" --wait=true &&
                for claim in "$RELAY_NAME-data" home-dev-1 home-dev-2; do remove_volume "$claim"; done
            ;;
        release)
            h uninstall "$RELAY_RELEASE" --wait && remove_volume "$RELAY_NAME-data"
            ;;
        nodes) kind/nodes down ;;
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
    local status=$? what home
    trap - EXIT INT TERM ERR
    # What is still to be done must not end half-way because a part of it is gone already.
    set +e
    if ((status != 0)) && [ -n "$work" ]; then
        evidence >&2
    fi
    if [ "$KEEP" = 1 ]; then
        join_in
        exit "$status"
    fi
    # Left by a scenario that was interrupted.
    for home in "$work"/cw-e2e-*/*/; do
        [ ! -S "${home}codewire.sock" ] || CODEWIRE_HOME=$home "$program" stop --grace 0 >/dev/null 2>&1
    done
    [ -z "$forwarder" ] || { kill "$forwarder" && wait "$forwarder"; } 2>/dev/null
    # With the cluster goes what is in it. The nodes may have left something on its node.
    [ -z "${made[namespace]:-}" ] || unset 'made[release]'
    [ -z "${made[cluster]:-}" ] || unset 'made[nodes]' 'made[release]' 'made[namespace]'
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
  curl $outside/healthz                            # by the port-forward, process ${forwarder:-none}

Remove it:

  kill ${forwarder:-}; rm -r $work
  kind delete cluster --name $CLUSTER_NAME         # or, in a cluster of yours:
  kubectl delete namespace $RELAY_NAMESPACE; kubectl delete persistentvolume --selector app.kubernetes.io/part-of=codewire-e2e
TEXT
}
