"""Files in pieces that can be sent one by one, and whole again.

    python pieces.py split FOLDER OUT      # every file below FOLDER, compressed, in pieces of at most 60 MiB
    python pieces.py join OUT FOLDER       # back again; every file is compared with its SHA-256
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PIECE = 60 << 20
LIST = "pieces.json"


def packed(path: Path) -> tuple[str, bytes]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), lzma.compress(data, preset=6)


def split(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files, whole = [], 0
    with ProcessPoolExecutor() as pool:
        for path, (digest, data) in zip(paths, pool.map(packed, paths)):
            name = str(path.relative_to(folder))
            pieces = []
            for start in range(0, len(data), PIECE):
                pieces.append(f"{len(files):03}-{len(pieces)}.xz")
                (out / pieces[-1]).write_bytes(data[start : start + PIECE])
            files.append({"name": name, "sha256": digest, "mode": path.stat().st_mode & 0o777, "pieces": pieces})
            whole += len(data)
    (out / LIST).write_text(json.dumps(files, indent=1) + "\n")
    print(f"{len(files)} files, {whole / 2**20:.1f} MiB to send, in {out}")


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
    {"split": split, "join": join}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
