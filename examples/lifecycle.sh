#!/usr/bin/env bash
# A model's life, from PyTorch checkpoints to live traffic, told with the example model in a few minutes:
# convert, evaluate, approve, deploy, refuse what is worse, replace under load.
#
#   examples/lifecycle.sh              # after `make build models`; needs nothing that runs already
#
# It starts a server of its own in a temporary folder, and leaves nothing behind. KEEP=1 keeps server and
# folder until you press Enter, so that you can look around.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sluice=${SLUICE_BIN:-$root/target/release/sluice}
runtime=${SLUICE_DATA:-$root/data}/lib/libonnxruntime.so
environments=${SLUICE_ENVIRONMENTS:-${SLUICE_DATA:-$root/data}/venv}
helpdesk=$root/examples/helpdesk
rows=${ROWS:-300}
work=$(mktemp -d)
server=

[ -x "$sluice" ] || { echo "there is no $sluice; run \`make build models\` first" >&2; exit 2; }
[ -e "$runtime" ] && export ORT_DYLIB_PATH=$runtime

finish() {
	local status=$?
	[ "$status" = 0 ] || { echo "— the server's last words:"; tail -n 20 "$work/server.log" || true; } >&2
	[ -n "${KEEP-}" ] && read -rp "Press Enter to stop the server at $SLUICE_URL ($work) "
	[ -n "$server" ] && kill "$server" && wait "$server" || true
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT

chapter() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as it is typed, then runs it as one of the people below.
as() { # PERSON ARGUMENT...
	local person=$1
	shift
	printf '\033[2m%s$ sluice %s\033[0m\n' "$person" "$*"
	SLUICE_API_KEY=${keys[$person]} "$sluice" "$@"
}
# The same for what must be refused.
refused() {
	if as "$@" 2>"$work/why"; then
		echo "this should have been refused" >&2
		exit 1
	fi
	sed 's/^/  → /' "$work/why"
}
# A field of a record, read quietly.
field() { # PERSON FIELD ARGUMENT...
	local person=$1 field=$2
	shift 2
	SLUICE_API_KEY=${keys[$person]} "$sluice" "$@" -o json |
		python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$field"
}

declare -A keys=([root]=sk-lifecycle-root)

chapter "A server with nothing in it"
cat >"$work/keys.toml" <<-TOML
	[[key]]
	name = "root"
	sha256 = "$(printf %s "${keys[root]}" | sha256sum | cut -d ' ' -f 1)"
	role = "admin"
TOML
cat >"$work/sluice.toml" <<-TOML
	listen = "127.0.0.1:0"
	[auth]
	required = true
	keys_file = "$work/keys.toml"
	[log]
	format = "off"
	[control.tasks]
	pipelines = "$root/pipelines"
	environments = "$environments"
TOML
"$sluice" serve --config "$work/sluice.toml" --data "$work/data" >"$work/server.log" 2>&1 &
server=$!
touch "$work/server.log"
until SLUICE_URL=$(sed -n 's/^Ready on //p' "$work/server.log") && [ -n "$SLUICE_URL" ]; do
	kill -0 "$server"
	sleep 0.1
done
export SLUICE_URL
for try in {1..100}; do
	SLUICE_API_KEY=${keys[root]} "$sluice" model list >"$work/answer" 2>&1 && break
	[ "$try" -lt 100 ] || { cat "$work/answer" >&2; exit 1; }
	sleep 0.2
done
echo "$SLUICE_URL, its console's API at $SLUICE_URL/api/v1/docs"

chapter "Three people: one makes models, one approves them, one runs them"
as root department create support
for person in ada:developer bo:approver cy:operator; do
	name=${person%:*} role=${person#*:}
	as root principal create "$name" role="$role" department=support
	keys[$name]=$(SLUICE_API_KEY=${keys[root]} "$sluice" key create "$name-laptop" principal="$name" 2>/dev/null)
done >/dev/null
echo "ada is a developer, bo an approver, cy an operator; each has a key that was shown once"

chapter "ada registers the model and its test set"
as ada model create helpdesk description="Triage of IT requests" train_framework=pytorch inference_framework=onnxruntime >/dev/null
head -n "$rows" "$helpdesk/test.jsonl" >"$work/tickets.jsonl"
set_of_tickets=$(as ada artifact push "$work/tickets.jsonl" --name tickets --kind dataset | tail -n 1)
as ada dataset create tickets modality=text secrecy=internal >/dev/null
as ada dataset add-version tickets artifact="$set_of_tickets" row_count="$rows" >/dev/null
cat >"$work/evaluation.yaml" <<-YAML
	metrics:
	  ask: {kind: chat, columns: {reference: ticket}, sampling: {max_tokens: 120}}
	  measure: [{kind: json_fields}, {kind: latency, percentile: 95}]
	thresholds:
	  rules:
	    - {metric: json_fields, min: 0.93, max_regression: {by: 0.01}}
YAML
as ada eval create triage model=helpdesk test_set=tickets@v1 -f "$work/evaluation.yaml" >/dev/null
as cy deploy create helpdesk model=helpdesk cpu_millis=1000 engine_options='{"slots": 8}' >/dev/null

for version in v1 v2; do
	chapter "ada converts checkpoint $version from PyTorch; it has to say the same words as its source"
	as ada model convert helpdesk --pipeline convert-causal-lm --source "$helpdesk/checkpoints/$version" \
		"tokenizer=@$helpdesk/models/$version" --add-version
done

chapter "v3 came from elsewhere, as ONNX"
v3=$(as ada artifact push "$helpdesk/models/v3" --name helpdesk-v3 --kind model | tail -n 1)
as ada model add-version helpdesk note="tuned in a hurry, 4 bits" >/dev/null
as ada model register helpdesk@v3 artifact="$v3" >/dev/null

chapter "v1 is evaluated, approved, deployed"
as ada eval run triage --version helpdesk@v1 --wait
as ada model request-approval helpdesk@v1 >/dev/null
refused ada model approve helpdesk@v1
as bo model approve helpdesk@v1 >/dev/null
deploy() { # VERSION REASON
	as ada workorder create helpdesk version="$1" reason="$2" >/dev/null
	local order
	order=$(SLUICE_API_KEY=${keys[ada]} "$sluice" workorder list deployment=helpdesk --limit 1 -o json |
		python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
	as bo workorder approve "$order" --wait
	as cy workorder steps "$order"
}
deploy v1 "the first one"
as ada chat --model helpdesk "I cannot log in to the VPN, ticket INC-48213. It is urgent!"

chapter "v3 fails its evaluation: it may not go live, and everyone can read why"
if as ada eval run triage --version helpdesk@v3 --wait; then
	echo "v3 should have failed" >&2
	exit 1
fi
refused ada model request-approval helpdesk@v3
as ada model request-override helpdesk@v3 reason="the customer waits" >/dev/null
refused bo model approve helpdesk@v3
refused ada workorder create helpdesk version=v3 reason="the customer waits"

chapter "v2 passes, and replaces v1 while requests come in"
as ada eval run triage --version helpdesk@v2 --wait
as ada model request-approval helpdesk@v2 >/dev/null
as bo model approve helpdesk@v2 >/dev/null
SLUICE_API_KEY=${keys[ada]} "$sluice" bench chat --model helpdesk --concurrency 4 --duration 15 --input "$work/tickets.jsonl" \
	-o json >"$work/load.json" 2>"$work/load.log" &
load=$!
deploy v2 "better at copying ids"
wait "$load" || { cat "$work/load.log" >&2; exit 1; }
python3 - "$work/load.json" <<-'PYTHON'
	import json, sys
	load = json.load(open(sys.argv[1]))
	done, failed = load["succeeded"], load["failed"]
	print(f"while it was replaced: {done} requests, {failed} errors")
	sys.exit(1 if failed or not done else 0)
PYTHON
as ada chat --model helpdesk "I cannot log in to the VPN, ticket INC-48213. It is urgent!"

chapter "And all of it on one page"
as ada model show helpdesk
live=$(field ada live_version deploy show helpdesk)
v2=$(SLUICE_API_KEY=${keys[ada]} "$sluice" model versions helpdesk -o json |
	python3 -c 'import json, sys; print(next(v["id"] for v in json.load(sys.stdin) if v["number"] == 2))')
[ "$live" = "$v2" ] || { echo "v2 should be live" >&2; exit 1; }
as bo audit list --limit 12
