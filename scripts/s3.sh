# shellcheck shell=bash
# An S3 for the tests: moto's server, which keeps everything in memory, on a free port of this machine, gone when
# the script that started it ends. Sourced after lib.sh.

# Sets SLUICE_TEST_S3 and keys that it takes. Call stop_s3 from the EXIT trap.
start_s3() {
	use_venv "$SLUICE_CACHE" s3 "$ROOT/scripts/requirements/s3.lock.txt" "a server that speaks S3, for the tests" --no-deps
	local try port
	for try in 1 2 3 4 5; do
		port=$((30000 + (RANDOM + $$ + try) % 10000))
		"$VENV/bin/moto_server" -H 127.0.0.1 -p "$port" >/dev/null 2>&1 </dev/null &
		S3_SERVER=$!
		if wait_for_s3 "$port"; then
			export SLUICE_TEST_S3=http://127.0.0.1:$port SLUICE_TEST_REQUIRE_S3=1
			export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true
			return
		fi
		stop_s3
	done
	die "the S3 server for the tests did not start"
}

wait_for_s3() { # PORT → true once it answers, false if it ended
	local tries=60
	while [ "$((tries -= 1))" -gt 0 ]; do
		kill -0 "$S3_SERVER" 2>/dev/null || return 1
		(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		sleep 1
	done
	return 1
}

stop_s3() {
	[ -z "${S3_SERVER:-}" ] || kill "$S3_SERVER" 2>/dev/null || true
	S3_SERVER=
}
