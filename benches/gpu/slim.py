"""ONNX Runtime's CUDA provider with the code of one GPU architecture only.

The library carries its kernels for every architecture, most of its size. A machine that is fed in
small pieces needs one. Nothing moves: in each container of `.nv_fatbin` the kept entries close up,
the rest becomes zeros (which compress to nothing), so every offset that the file holds stays right.
A container without code for the architecture is left whole, for it may hold what the driver can
still compile.

    python benches/gpu/slim.py libonnxruntime_providers_cuda.so slim.so --keep 90
"""

import argparse
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = 0xBA55ED50
CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries
ENTRY = struct.Struct("<HHIQ")  # kind, version, bytes of this header, bytes of the code
ARCHITECTURE = 28  # where an entry's header says it, for example 90
KINDS = {1: "ptx", 2: "sm"}
SECTION = ".nv_fatbin"


class NotSlimmable(ValueError):
    """The file is not what this knows how to cut."""


@dataclass
class Outcome:
    containers: int = 0
    left_whole: int = 0
    kept: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)


def section(library: bytes | bytearray, name: str) -> tuple[int, int]:
    """Where a section begins and ends in a 64-bit little-endian ELF file."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise NotSlimmable("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", library, table + i * size) for i in range(count)]
    strings = headers[names][4]
    for label, _, _, _, offset, length in headers:
        start = strings + label
        if library[start : library.index(b"\0", start)] == name.encode():
            return offset, offset + length
    raise NotSlimmable(f"no section {name}")


def containers(library: bytes | bytearray, start: int, end: int):
    """Offsets of each container's entries, begin and end. Between containers there are only zeros."""
    at = start
    while at + CONTAINER.size <= end:
        magic, version, header, size = CONTAINER.unpack_from(library, at)
        if magic == 0:
            at += 4
            continue
        if magic != MAGIC or version != 1 or header != CONTAINER.size or at + header + size > end:
            raise NotSlimmable(f"no fat binary of version 1 at offset {at}")
        yield at, at + header + size
        at += header + size


def entries(library: bytes | bytearray, container: int, end: int):
    """Offset, end, kind and architecture of each entry."""
    at = container + CONTAINER.size
    while at < end:
        if at + ENTRY.size > end:
            raise NotSlimmable(f"an entry at offset {at} is cut off")
        kind, _, header, size = ENTRY.unpack_from(library, at)
        if kind not in KINDS or header < ARCHITECTURE + 4 or at + header + size > end:
            raise NotSlimmable(f"no entry of a known kind at offset {at}")
        (architecture,) = struct.unpack_from("<I", library, at + ARCHITECTURE)
        yield at, at + header + size, KINDS[kind], architecture
        at += header + size


def slim(library: bytearray, keep: int) -> Outcome:
    """Cuts in place. Raises `NotSlimmable` if there is nothing for `keep` at all."""
    outcome = Outcome()
    for container, end in list(containers(library, *section(library, SECTION))):
        outcome.containers += 1
        found = list(entries(library, container, end))
        kept = bytearray()
        if not any(architecture == keep for *_, architecture in found):
            outcome.left_whole += 1
            continue
        for start, stop, kind, architecture in found:
            counted = outcome.kept if architecture == keep else outcome.dropped
            counted[f"{kind}_{architecture}"] += 1
            if architecture == keep:
                kept += library[start:stop]
        body = container + CONTAINER.size
        library[body:end] = kept + bytes(end - body - len(kept))
        CONTAINER.pack_into(library, container, MAGIC, 1, CONTAINER.size, len(kept))
    if not outcome.kept:
        raise NotSlimmable(f"no code for sm_{keep} in any of {outcome.containers} containers")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--keep", type=int, default=90, help="architecture, 90 for sm_90 (default)")
    arguments = parser.parse_args()
    library = bytearray(arguments.source.read_bytes())
    try:
        outcome = slim(library, arguments.keep)
    except NotSlimmable as reason:
        sys.exit(f"error: {arguments.source}: {reason}")
    arguments.target.write_bytes(library)
    print(f"{outcome.containers} containers, {outcome.left_whole} without sm_{arguments.keep} left whole")
    print("kept:", dict(outcome.kept), "dropped:", dict(outcome.dropped))


if __name__ == "__main__":
    main()
