"""A CUDA library without the code of other cards than Hopper's: zeros in its place, so that it compresses."""

from __future__ import annotations

import struct

MAGIC = struct.pack("<I", 0xBA55ED50)
"""Where a container of GPU code begins; then version, length of this header, length of the entries."""
MACHINE_CODE = 2
HOPPER = 9
"""The first digit of 90."""


def slimmed(library: bytes) -> bytes:
    """The same library, of the same layout; PTX is kept."""
    data, at = bytearray(library), 0
    while (at := data.find(MAGIC, at)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", data, at + 4)
        if (version, header) != (1, 16) or at + header + size > len(data):
            at += len(MAGIC)  # four bytes of something else
            continue
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, head, length = struct.unpack_from("<HHIQ", data, entry)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            assert kind in (1, 2), kind
            assert 32 <= head <= 256, head
            assert entry + head + length <= end, length
            if kind == MACHINE_CODE and architecture // 10 != HOPPER:
                data[entry + head : entry + head + length] = bytes(length)
            entry += head + length
        assert entry == end, (entry, end)
        at = end
    return bytes(data)
