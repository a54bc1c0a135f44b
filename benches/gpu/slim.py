"""ONNX Runtime's CUDA provider with the code of one architecture only.

    python slim.py libonnxruntime_providers_cuda.so OUT --keep 90

The library carries machine code for every GPU since 2016: 284 MB. It lies in fat binaries, each a header
(magic 0xBA55ED50, version, header size, size of what follows) and entries (kind, version, header size, size,
architecture at byte 28). Entries of other architectures are removed in place and the space is zeroed, so that
no address in the library moves; zeros compress to nothing. A fat binary without the wanted architecture stays whole:
its PTX may be all there is.
"""

from __future__ import annotations

import argparse
import struct
from collections import Counter
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
CONTAINER, ENTRY = struct.Struct("<IHHQ"), struct.Struct("<HHIQ")
ARCHITECTURE = 28


def entries(data: bytes, start: int, end: int) -> list[tuple[int, bytes]] | None:
    """(architecture, bytes) of each entry; None if this is no fat binary after all."""
    found = []
    while start < end:
        if end - start < 32:
            return None
        _, _, header, size = ENTRY.unpack_from(data, start)
        if header < 32 or start + header + size > end:
            return None
        found.append((struct.unpack_from("<I", data, start + ARCHITECTURE)[0], data[start : start + header + size]))
        start += header + size
    return found


def slim(data: bytearray, keep: set[int]) -> Counter:
    """Removes entries in place; counts fat binaries, kept and removed entries."""
    counts: Counter = Counter()
    place = data.find(MAGIC)
    while place >= 0:
        _, version, header, size = CONTAINER.unpack_from(data, place)
        start, end = place + header, place + header + size
        found = entries(bytes(data[start:end]), 0, size) if version == 1 and header == 16 and end <= len(data) else None
        if found is None:
            place = data.find(MAGIC, place + 4)
            continue
        kept = [entry for architecture, entry in found if architecture in keep]
        counts["fat binaries"] += 1
        if kept:
            code = b"".join(kept)
            data[start:end] = code + bytes(size - len(code))
            struct.pack_into("<Q", data, place + 8, len(code))
            counts["kept"] += len(kept)
            counts["removed"] += len(found) - len(kept)
        else:
            counts["left whole"] += 1
        place = data.find(MAGIC, end)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=int, nargs="+", default=[90])
    arguments = parser.parse_args()
    data = bytearray(arguments.library.read_bytes())
    size = len(data)
    counts = slim(data, set(arguments.keep))
    if len(data) != size or not counts["kept"]:
        raise SystemExit(f"{arguments.library}: no code for {arguments.keep} was found ({dict(counts)})")
    arguments.out.write_bytes(data)
    print(dict(counts))


if __name__ == "__main__":
    main()
