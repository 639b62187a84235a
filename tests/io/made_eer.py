"""EER files written by hand, since no library here encodes them: 7-bit run lengths, 2 + 2 bits within the pixel."""

import struct

import numpy as np

RUN_BITS, LONGEST = 7, 127


def encode(events, shape):
    """Bytes of one page; events are (y, x, sub_y, sub_x), sub 0 to 3 counted from the pixel's lower index."""
    bits, position = [], 0

    def put(value, count):
        bits.extend((value >> i) & 1 for i in range(count))

    for y, x, sub_y, sub_x in sorted(events):
        run = y * shape[1] + x - position
        while run >= LONGEST:
            put(LONGEST, RUN_BITS)
            run -= LONGEST
        put(run, RUN_BITS)
        put(sub_x ^ 2, 2)
        put(sub_y ^ 2, 2)
        position = y * shape[1] + x + 1
    run = shape[0] * shape[1] - position
    while run >= LONGEST:
        put(LONGEST, RUN_BITS)
        run -= LONGEST
    put(run, RUN_BITS)
    bits += [0] * (-len(bits) % 8)
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def write_eer(path, pages, shape):
    """A TIFF of compression 65001 with one page for each list of events."""
    data = b"II*\0" + struct.pack("<I", 0)
    link = 4
    for events in pages:
        strip = encode(events, shape)
        offset = len(data)
        data += strip + b"\0" * (len(strip) % 2)
        entries = [
            (256, 4, shape[1]),
            (257, 4, shape[0]),
            (258, 3, 8),
            (259, 3, 65001),
            (262, 3, 1),
            (273, 4, offset),
            (277, 3, 1),
            (278, 4, shape[0]),
            (279, 4, len(strip)),
        ]
        place = len(data)
        data = data[:link] + struct.pack("<I", place) + data[link + 4 :]
        data += struct.pack("<H", len(entries))
        data += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        link = len(data)
        data += struct.pack("<I", 0)
    path.write_bytes(data)
