"""Files in folders that can be sent one by one, and whole again.

    python pieces.py split FOLDER OUT [MIB]    # every file below FOLDER, compressed, in OUT/1, OUT/2, … of at most MIB (60) each
    python pieces.py join OUT FOLDER           # back again; every file is compared with its SHA-256
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

LIST = "pieces.json"


def packed(path: Path) -> tuple[str, bytes]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), lzma.compress(data, preset=6)


def split(folder: Path, out: Path, mib: int) -> None:
    """Fills one folder after the other, so that a file may begin in one and end in the next."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    limit = mib << 20
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files, whole = [], 0
    folders, left = 0, 0
    with ProcessPoolExecutor() as pool:
        for path, (digest, data) in zip(paths, pool.map(packed, paths)):
            name = str(path.relative_to(folder))
            pieces = []
            start = 0
            while start < len(data):
                if not left:
                    folders, left = folders + 1, limit
                    (out / str(folders)).mkdir()
                piece = data[start : start + left]
                pieces.append(f"{folders}/{len(files):03}.xz")
                (out / pieces[-1]).write_bytes(piece)
                start, left = start + len(piece), left - len(piece)
            files.append({"name": name, "sha256": digest, "mode": path.stat().st_mode & 0o777, "pieces": pieces})
            whole += len(data)
    (out / LIST).write_text(json.dumps(files, indent=1) + "\n")
    print(f"{len(files)} files, {whole / 2**20:.1f} MiB to send, in {folders} folders of at most {mib} MiB: {out}")


def unpacked(job: tuple[dict, Path, Path]) -> None:
    file, source, folder = job
    data = lzma.decompress(b"".join((source / piece).read_bytes() for piece in file["pieces"]))
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise SystemExit(f"{file['name']} did not arrive whole")
    target = folder / file["name"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    os.chmod(target, file["mode"])


def join(source: Path, folder: Path) -> None:
    files = json.loads((source / LIST).read_text())
    missing = [piece for file in files for piece in file["pieces"] if not (source / piece).exists()]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}")
    with ProcessPoolExecutor() as pool:
        list(pool.map(unpacked, [(file, source, folder) for file in files]))


if __name__ == "__main__":
    verb, source, target, *mib = sys.argv[1:]
    if verb == "split":
        split(Path(source), Path(target), int(mib[0]) if mib else 60)
    else:
        join(Path(source), Path(target))
