#!/usr/bin/env bash
# Three sessions on two nodes talk through the mesh, in Kubernetes: a relay installed by its Helm
# chart, two nodes in pods, and a third node on this machine, in a cluster made by kind. Every step
# is shown with its real output, and every outcome is checked: the status is 0 only if all were as
# they should be. Otherwise the reason is told, with the logs of everything.
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
#   CONTRACT          0                    1 also tries, for some minutes, what a scenario relies on:
#                                          that pods are stopped, killed and cut off when they are
#   CW                                     a finished static cw; without it one is built
#   BUSYBOX                                a static busybox, what sessions in the pods run; without it
#                                          this machine's is taken, or Debian's, or an image's
#
# The story itself is e2e/src/scenario.rs, which is also played by processes, in namespaces and in
# containers: here by two pods, and by a pod and this machine.
#
# Whatever was there before stays: a cluster, a namespace or a release that is found is used and
# left. What this script makes it removes, also when it fails.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }

export CLUSTER_NAME="${CLUSTER_NAME:-codewire-relay-e2e}" \
    RELAY_NAMESPACE="${RELAY_NAMESPACE:-relay-test}" \
    RELAY_RELEASE="${RELAY_RELEASE:-cw-relay-test}" \
    RELAY_NAME="${RELAY_NAME:-relay-test}" \
    RELAY_PORT="${RELAY_PORT:-18080}" \
    RELAY_TOKEN="${RELAY_TOKEN:-dev-secret}" \
    RELAY_IMAGE_REPO="${RELAY_IMAGE_REPO:-codewire-relay}" \
    RELAY_IMAGE_TAG="${RELAY_IMAGE_TAG:-kind-e2e}"
read -ra helm_args <<<"${RELAY_HELM_ARGS:-}"
export KEEP="${KEEP:-0}"
CONTRACT=${CONTRACT:-0}

image=$RELAY_IMAGE_REPO:$RELAY_IMAGE_TAG
node_image=$RELAY_IMAGE_REPO-node:$RELAY_IMAGE_TAG
# What this machine calls the relay.
outside=http://127.0.0.1:$RELAY_PORT

# shellcheck source=../kind/lib.sh
. kind/lib.sh

# --- before anything is done

missing=()
for tool in docker kind kubectl helm cargo sed; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
fi
kind/images check
if ! answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
    echo "missing: a container engine; docker says: $(tail -n 1 <<<"$answer")" >&2
    exit 1
fi
if (exec 3<>"/dev/tcp/127.0.0.1/$RELAY_PORT") 2>/dev/null; then
    echo "port $RELAY_PORT of this machine is taken; set RELAY_PORT to another" >&2
    exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/cw-kind.XXXXXX")
# The user's own stays as it is.
export KUBECONFIG=$work/kubeconfig
trap clean_up EXIT
trap 'printf "\nFAILED in line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM

# --- the image

step "builds the image, and who plays"
program=$PWD/target/static/cw
docker image inspect "$image" >/dev/null 2>&1 || made[image]=1
kind/images "$image" "$node_image"
play=(cargo test --locked --package e2e --test scenario)
tests=1
if [ "$CONTRACT" = 1 ]; then
    play+=(--test contract)
    tests=2
fi
"${play[@]}" --no-run

# --- the cluster

if kind get clusters 2>/dev/null | grep -qx -- "$CLUSTER_NAME"; then
    step "uses the cluster $CLUSTER_NAME"
    kind get kubeconfig --name "$CLUSTER_NAME" >"$work/kubeconfig"
else
    step "makes the cluster $CLUSTER_NAME"
    made[cluster]=1
    kind create cluster --quiet --name "$CLUSTER_NAME" --config kind/cluster.yaml --wait 120s || fail "kind create cluster failed"
fi
find_cluster_node
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
        kubectl --context "kind-$CLUSTER_NAME" --namespace "$RELAY_NAMESPACE" port-forward "service/$RELAY_NAME-http" "$RELAY_PORT:8080" >>"$work/port-forward.log" 2>&1 &
        child=$!
        wait $child
        sleep 0.2
    done
) &
forwarder=$!
answers() { host cw health --url "$outside" >/dev/null 2>&1; }
until_true 30 "an answer at $outside" answers
host cw health --url "$outside/readyz"

step "speaks with it by the token, and not without"
bold "$ CODEWIRE_RELAY_AUTH_TOKEN=wrong cw network list"
out=$(RELAY_TOKEN=wrong-$RELAY_TOKEN host cw network list 2>&1) && fail "the relay takes any token"
echo "$out"
grep -q unauthorized <<<"$out" || fail "this should have been refused for its token"
bold "$ cw network list"
host cw network list ||
    fail "the relay does not take RELAY_TOKEN: it was installed with another, or has been changed since"

# --- the scenario

step "plays the scenario: by a pod and this machine, by two pods"
made[nodes]=1
# One after the other, and everything is shown. Whatever it leaves lies in our directory.
(
    set -o pipefail
    TMPDIR=$work RUST_BACKTRACE=0 "${play[@]}" -- --exact kind --nocapture --test-threads=1 2>&1 | tee "$work/play.out"
) || fail "the scenario: $(sed -n '/panicked at/,/^note:/{//d;/^\(status\|stdout:\) /d;p;}' "$work/play.out" | grep . | head -n 4)"
[ "$(grep -c '^test result: ok. 1 passed' "$work/play.out")" = "$tests" ] || fail "the scenario was not played"
! grep '^skipped' "$work/play.out" || fail "the scenario was skipped"

printf '\n'
bold "all as it should be, in $((SECONDS - started)) s"
