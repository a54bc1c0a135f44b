"""The cutter of ONNX Runtime's CUDA provider, on ELF files made here."""

import struct
import sys

import pytest
import sluice

sys.path.insert(0, str(sluice.ROOT / "benches" / "gpu"))
import slim as cutter


def entry(architecture, code, kind=2):
    header = bytearray(64)
    struct.pack_into("<HHIQ", header, 0, kind, 1, 64, len(code))
    struct.pack_into("<I", header, cutter.ARCHITECTURE, architecture)
    return bytes(header) + code


def container(*parts):
    body = b"".join(parts)
    return struct.pack("<IHHQ", cutter.MAGIC, 1, 16, len(body)) + body


def elf(fatbin, name=b".nv_fatbin"):
    names = b"\0" + name + b"\0.shstrtab\0"
    at = 64
    table = at + len(fatbin) + len(names)
    header = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<QIHHHHHH", table, 0, 64, 0, 0, 64, 3, 2)
    row = lambda label, offset, size: struct.pack("<IIQQQQ", label, 1, 0, 0, offset, size).ljust(64, b"\0")
    rows = row(0, 0, 0) + row(1, at, len(fatbin)) + row(len(name) + 2, at + len(fatbin), len(names))
    return bytearray(header + fatbin + names + rows)


def found(library):
    return [
        [(kind, architecture, bytes(library[start + 64 : stop])) for start, stop, kind, architecture in cutter.entries(library, *one)]
        for one in cutter.containers(library, *cutter.section(library, ".nv_fatbin"))
    ]


def test_keeps_one_architecture_and_moves_nothing():
    first = container(entry(80, b"a" * 24), entry(90, b"b" * 16), entry(120, b"c" * 8, kind=1))
    only_80 = container(entry(80, b"d" * 32))
    last = container(entry(90, b"e" * 8), entry(80, b"f" * 8))
    whole = elf(first + bytes(8) + only_80 + last)
    library = bytearray(whole)

    outcome = cutter.slim(library, 90)

    assert found(library) == [[("sm", 90, b"b" * 16)], [("sm", 80, b"d" * 32)], [("sm", 90, b"e" * 8)]]
    assert (outcome.containers, outcome.left_whole) == (3, 1)
    assert outcome.dropped == {"sm_80": 2, "ptx_120": 1}
    assert len(library) == len(whole)
    # Headers, the other sections and the containers' places are as they were.
    end = 64 + len(first) + 8 + len(only_80) + len(last)
    assert library[:64] == whole[:64] and library[end:] == whole[end:]
    magic = struct.pack("<I", cutter.MAGIC)
    for place in (64, 64 + len(first) + 8, 64 + len(first) + 8 + len(only_80)):
        assert library[place : place + 4] == magic


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (bytearray(b"text"), "not a 64-bit"),
        (elf(container(entry(90, b"x")), name=b".nothing_at"), "no section .nv_fatbin"),
        (elf(container(entry(80, b"x" * 8))), "no code for sm_90"),
        (elf(container(entry(90, b"x" * 8))[:-4]), "no fat binary of version 1"),
        (elf(container(entry(90, b"x" * 8, kind=9))), "no entry of a known kind"),
    ],
)
def test_says_what_is_wrong_and_cuts_nothing(library, reason):
    before = bytes(library)
    with pytest.raises(cutter.NotSlimmable, match=reason):
        cutter.slim(library, 90)
    assert library == before
