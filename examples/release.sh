#!/usr/bin/env bash
# A good release and a bad one, told with the example model in a minute or two: v2 replaces v1 step by step while people
# write to it; v3, which got through a test that asked too little, is taken back before anybody reads a word of it.
#
#   examples/release.sh              # after `make build models`; needs nothing that runs already
#
# It starts a server of its own in a temporary folder, and leaves nothing behind. KEEP=1 keeps server and
# folder until you press Enter, so that you can look around.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sluice=${SLUICE_BIN:-$root/target/release/sluice}
runtime=${SLUICE_DATA:-$root/data}/lib/libonnxruntime.so
helpdesk=$root/examples/helpdesk
work=$(mktemp -d)
server='' people=''

[ -x "$sluice" ] || { echo "there is no $sluice; run \`make build models\` first" >&2; exit 2; }
[ -e "$runtime" ] && export ORT_DYLIB_PATH=$runtime
# Keys are the lifecycle's story: here whoever asks is the administrator.
unset SLUICE_API_KEY SLUICE_API_KEYS

finish() {
	local status=$?
	[ "$status" = 0 ] || { echo "— the server's last words:"; tail -n 20 "$work/server.log" || true; } >&2
	[ -n "${KEEP-}" ] && read -rp "Press Enter to stop the server at $SLUICE_URL ($work) "
	local process
	for process in $people $server; do
		kill "$process" 2>/dev/null && wait "$process" || true
	done
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT

chapter() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as it is typed, then runs it.
run() { # ARGUMENT...
	printf '\033[2m$ sluice %s\033[0m\n' "$*"
	"$sluice" "$@"
}
quietly() { "$sluice" "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; return 1; }; }
begin_traffic() {
	"$root/examples/releases/traffic.py" "$SLUICE_URL" "$work/tickets.jsonl" >"$work/traffic" &
	people=$!
}
# What people got, who must not have met an error.
end_traffic() {
	kill "$people"
	wait "$people" || { cat "$work/traffic"; echo "somebody met an error" >&2; exit 1; }
	people=''
	cat "$work/traffic"
}
# Starts a release, follows it to its end, and says whether that is the right one. One that waits for a person, or goes
# on for too long, ends the story: nobody is there to answer, and it says what it waits for.
release() { # VERSION STATUS REASON
	local status=0
	run release start helpdesk --to "$1" --strategy "$root/examples/releases/helpdesk.yaml" --reason "$3" \
		--watch --until-paused --within 2m || status=$?
	[ "$status" = "$2" ] || { echo "the release of $1 ended with $status instead of $2" >&2; exit 1; }
}

chapter "A server, the model's three versions, and a test that asks too little"
cat >"$work/sluice.toml" <<-TOML
	listen = "127.0.0.1:0"
	[log]
	format = "off"
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
	"$sluice" model list >"$work/said" 2>&1 && break
	[ "$try" -lt 100 ] || { cat "$work/said" >&2; exit 1; }
	sleep 0.2
done
cp "$helpdesk/test.jsonl" "$work/tickets.jsonl"
head -n 40 "$helpdesk/test.jsonl" >"$work/few.jsonl"
quietly model create helpdesk description="Triage of IT requests"
quietly dataset create few modality=text
quietly dataset add-version few row_count=40 \
	artifact="$("$sluice" artifact push "$work/few.jsonl" --name few --kind dataset 2>/dev/null | tail -n 1)"
cat >"$work/evaluation.yaml" <<-YAML
	metrics:
	  ask: {kind: chat, columns: {reference: ticket}, sampling: {max_tokens: 120}}
	  measure: [{kind: json_fields}]
	thresholds:
	  rules: [{metric: json_fields, min: 0.7}]
YAML
quietly eval create triage model=helpdesk test_set=few@v1 -f "$work/evaluation.yaml"
quietly deploy create helpdesk model=helpdesk cpu_millis=1000 engine_options='{"slots": 8}'
for version in v1 v2 v3; do
	quietly model add-version helpdesk
	artifact=$("$sluice" artifact push "$helpdesk/models/$version" --name "helpdesk-$version" --kind model 2>/dev/null | tail -n 1)
	quietly model register "helpdesk@$version" artifact="$artifact"
	run eval run triage --version "helpdesk@$version" --wait >"$work/said" 2>"$work/progress" ||
		{ cat "$work/said" "$work/progress" >&2; exit 1; }
	sed -n '1p;s/^  passed */  passed: /p' "$work/said"
	quietly model request-approval "helpdesk@$version"
	quietly model approve "helpdesk@$version"
done
quietly workorder create helpdesk version=v1 reason="the first one"
order=$("$sluice" workorder list deployment=helpdesk --limit 1 -o json |
	python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
quietly workorder approve "$order" --wait
echo "v1 is live; all three versions have passed and are approved"

chapter "v2 is released while people write"
cat "$root/examples/releases/helpdesk.yaml"
begin_traffic
release v2 0 "better at copying ids"
end_traffic

chapter "v3 is released: copies of what people ask tell that it answers something else"
begin_traffic
release v3 3 "smaller and cheaper"
end_traffic
if grep -q "^  v3-" "$work/traffic"; then
	echo "somebody was answered by v3" >&2
	exit 1
fi

chapter "What was decided, and on which evidence"
run release history helpdesk
run release replay helpdesk
run release pairs helpdesk --disagree >"$work/pairs"
head -n 12 "$work/pairs"

chapter "After all, v1 was not so bad: back to it at once"
begin_traffic
# v3 was taken back a moment ago: without a name it would be that once more, and nothing would move.
run rollback helpdesk --to v1 --reason "for the sake of the story"
sleep 2
end_traffic
