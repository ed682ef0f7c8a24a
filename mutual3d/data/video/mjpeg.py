"""Whether a frame of an MJPEG stream stands by itself: its decoder takes tables that it lacks from the frame before, unsaid."""

from collections.abc import Callable

# JPEG's segments: quantisation and Huffman tables, the kinds of frame headers that FFmpeg decodes, the start of the pixels.
_QUANTISATION, _HUFFMAN, _SCAN = 0xDB, 0xC4, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)
_LOSSLESS = (0xC3, 0xF7)


def has_its_tables(image: bytes) -> bool:
    """Whether a JPEG defines every table that its first scan uses. Without any Huffman table it means the standard ones."""
    quantisation, huffman, used, frame = set(), set(), set(), None
    place = image.find(b"\xff\xd8") + 2
    while True:
        place = image.find(b"\xff", place)
        if place < 0 or place + 4 > len(image):
            return False
        kind, length = image[place + 1], int.from_bytes(image[place + 2 : place + 4], "big")
        if kind in (0x00, 0xFF) or 0xD0 <= kind <= 0xD8:
            place += 1
            continue
        segment = image[place + 4 : place + 2 + length]
        place += 2 + length
        if kind == _QUANTISATION:
            quantisation |= _table_numbers(segment, lambda rest: 1 + 64 * (1 + (rest[0] >> 4)))
        elif kind == _HUFFMAN:
            huffman |= _table_numbers(segment, lambda rest: 17 + sum(rest[1:17]))
        elif kind in _FRAMES:
            frame, used = kind, set(segment[8::3])
        elif kind == _SCAN:
            components = segment[2 : 1 + 2 * segment[0] : 2] if segment else b""
            coded = {byte >> 4 for byte in components} | {0x10 | byte & 0xF for byte in components}
            is_coded = not huffman or frame not in (0xC0, 0xC1) or coded <= huffman
            return frame is not None and is_coded and (frame in _LOSSLESS or used <= {number & 0xF for number in quantisation})


def _table_numbers(segment: bytes, length_of: Callable[[bytes], int]) -> set[int]:
    """The first byte, precision or class and number, of each table in a segment."""
    numbers = set()
    while segment:
        numbers.add(segment[0])
        segment = segment[length_of(segment) :]
    return numbers
