# shellcheck shell=bash
# A PostgreSQL server for the tests: empty, on a free port of this machine, gone when the script that
# started it ends. Sourced after lib.sh.

postgres_bin() { # → the folder with initdb and pg_ctl, the newest there is
	local folder
	for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v initdb || echo /none/.)")"; do
		if [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ]; then
			printf '%s\n' "$folder"
			return
		fi
	done
	return 1
}

# PostgreSQL refuses to run as root.
as_postgres() { # COMMAND...
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid=postgres --regid=postgres --init-groups env HOME="$POSTGRES_FOLDER" "$@"
	else
		"$@"
	fi
}

# Sets SLUICE_TEST_POSTGRES. Call stop_postgres from the EXIT trap.
start_postgres() {
	POSTGRES_BIN=$(postgres_bin) || {
		apt_install "a PostgreSQL server for the tests" postgresql postgresql-client || true
		POSTGRES_BIN=$(postgres_bin) || die "PostgreSQL is needed for the tests; run: sudo apt-get install postgresql"
	}
	POSTGRES_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/sluice-postgres.XXXXXX")
	if [ "$(id -u)" = 0 ]; then
		chown postgres:postgres "$POSTGRES_FOLDER"
	fi
	as_postgres "$POSTGRES_BIN/initdb" -D "$POSTGRES_FOLDER/data" -U test -A trust --locale=C.UTF-8 -E UTF8 --no-sync >/dev/null
	local try port
	for try in 1 2 3 4 5; do
		port=$((20000 + (RANDOM + $$ + try) % 10000))
		if as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_FOLDER/data" -w -s -l "$POSTGRES_FOLDER/log" start -o \
			"-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$POSTGRES_FOLDER -c fsync=off -c max_connections=200" \
			>/dev/null 2>&1; then
			export SLUICE_TEST_POSTGRES=postgres://test@127.0.0.1:$port/postgres SLUICE_TEST_REQUIRE_POSTGRES=1
			return
		fi
	done
	cat "$POSTGRES_FOLDER/log" >&2 || true
	die "PostgreSQL did not start"
}

stop_postgres() {
	[ -n "${POSTGRES_FOLDER:-}" ] || return 0
	as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_FOLDER/data" -s -m immediate stop >/dev/null 2>&1 || true
	rm -rf "$POSTGRES_FOLDER"
	POSTGRES_FOLDER=
}
