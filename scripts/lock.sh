#!/usr/bin/env bash
# Resolves each requirements file into the hash-pinned lock beside it (NAME.txt → NAME.lock.txt), for
# every supported Python and processor at once. To add one, create the lock as an empty file first.
# A line `# lock: OPTION...` in a requirements file is handed to the resolver. No index address gets
# into a lock: pip uses the one it is set up for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || {
	echo "error: uv is needed to resolve lock files; run: pip install uv" >&2
	exit 1
}

find . \( -name target -o -name node_modules -o -name data -o -name '.?*' \) -prune \
	-o -name '*.lock.txt' -print | sort | while read -r lock; do
	source=${lock%.lock.txt}.txt
	read -ra options < <(sed -n 's/^# lock: //p' "$source" | tr '\n' ' '; echo)
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		"${options[@]}" "${source#./}" --output-file "${lock#./}"
	echo "${lock#./}: $(grep -c '==' "$lock") packages"
done
