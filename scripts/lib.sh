# shellcheck shell=bash
# What the other scripts share. Sourced, never run; expects `set -euo pipefail`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SLUICE_DATA=$(mkdir -p "${SLUICE_DATA:=$ROOT/data}" && cd "$SLUICE_DATA" && pwd)
# Test environments are large and the same for every checkout, so they live with the user.
SLUICE_CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-$ROOT}/.cache}/sluice}
export SLUICE_DATA SLUICE_CACHE

say() { printf '%s\n' "$*"; }

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

digest_of() { # FILE... → one short digest over their contents
	cat -- "$@" | sha256sum | cut -c1-16
}

size_of() { # PATH → 34M
	du -shL -- "$1" | cut -f1
}

apt_install() { # PURPOSE PACKAGE... → true if installed; false if this user or system cannot
	local purpose=$1
	shift
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
	say "Installing $* ($purpose) with apt-get"
	# One apt at a time; a fresh container has no package lists yet.
	(
		flock 9
		export DEBIAN_FRONTEND=noninteractive
		set -- -o DPkg::Lock::Timeout=300 "$@"
		apt-get install -y -qq "$@" >/dev/null 2>&1 ||
			{ apt-get update -qq >/dev/null && apt-get install -y -qq "$@" >/dev/null; }
	) 9>"$SLUICE_DATA/.apt.lock"
}

# Unpacks a Debian package into a folder without installing it; false if it is not to be had.
unpack_package() ( # PACKAGE FOLDER
	work=$(mktemp -d) || return
	trap 'rm -rf "$work"' EXIT
	cd "$work" || return
	# A fresh container has no package lists yet; only root can fetch them.
	apt-get download -qq "$1" >/dev/null 2>&1 ||
		{ apt-get update -qq && apt-get download -qq "$1"; } >/dev/null 2>&1 || return
	mkdir -p "${2%/*}"
	dpkg-deb --extract "$1"_*.deb tree && rm -rf "$2" && mv tree "$2"
)

# Runs a command beside what follows, its output marked line by line. It gets a process group of
# its own, so that an interrupted or failed build does not leave downloads running behind the prompt.
start_beside() { # COMMAND...
	set -m
	"$@" > >(sed -u 's/^/[setup] /') 2>&1 </dev/null &
	BESIDE=$!
	set +m
	trap stop_beside EXIT
}

wait_beside() {
	wait "$BESIDE" || die "setup failed; see the [setup] lines above"
	BESIDE=
}

stop_beside() {
	[ -z "${BESIDE:-}" ] || kill -- "-$BESIDE" 2>/dev/null || true
}

python_of_host() { # → path of a Python ≥ 3.11
	local candidate
	for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
		if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	die "Python 3.11 or newer is needed; set PYTHON to one if it is not on the PATH"
}

# Debian splits the venv module (and the pip inside it) from Python.
ensure_venv_module() { # PYTHON
	"$1" -c 'import venv, ensurepip' 2>/dev/null && return
	local version
	version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	apt_install "Python's venv module" "python$version-venv" || true
	"$1" -c 'import venv, ensurepip' 2>/dev/null ||
		die "this Python has no venv module; run: sudo apt-get install python$version-venv"
}

# A virtual environment that holds exactly what a lock file lists. Its folder is named after
# the lock's digest, so a changed lock makes a new one and an unchanged one costs nothing.
# Sets VENV rather than printing it, to leave standard output to the progress lines.
use_venv() { # PARENT NAME LOCK WHAT [PIP_OPTION...]
	local parent=$1 name=$2 lock=$3 what=$4 python marker
	shift 4
	VENV=$parent/$name-$(digest_of "$lock")
	marker=$VENV/.complete
	[ -e "$marker" ] && "$VENV/bin/python" -c '' 2>/dev/null && return
	python=$(python_of_host)
	ensure_venv_module "$python"
	mkdir -p "$parent"
	exec 8>"$parent/.$name.lock"
	flock 8
	if [ ! -e "$marker" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
		say "Fetching $what"
		rm -rf "$VENV"
		"$python" -m venv "$VENV"
		PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install --no-input --progress-bar off \
			--require-hashes --only-binary :all: "$@" -r "$lock" | large_downloads
		touch "$marker"
		say "Installed $name: $(size_of "$VENV") in $VENV"
		remove_older_venvs "$parent" "$name"
	fi
	exec 8>&-
}

# pip's own account of an installation, cut down to what takes long: downloads of 10 MB and more.
large_downloads() {
	sed -nuE 's#^ *Downloading ([^ ]*/)?([^-/ ]+)-[^ ]* \(([0-9]{2,}\.[0-9] MB|[0-9.]+ GB)\).*#  \2 (\3)#p'
}

remove_older_venvs() { # PARENT NAME: all but $VENV, the digest being the 16 characters at the end
	local other
	for other in "$1/$2"-????????????????; do
		if [ "$other" != "$VENV" ]; then
			rm -rf "$other"
		fi
	done
}
