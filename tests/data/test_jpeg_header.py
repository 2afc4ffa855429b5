"""Tests of data/jpeg_header.py, on headers written out marker by marker."""

from __future__ import annotations

import struct

import pytest

from dtrain.data.errors import DataError
from dtrain.data.jpeg_header import JpegHeader, cut_rows, read_jpeg_header

JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
TABLE = b"\xff\xdb\x00\x05\x00\xff\xd9"  # what stands in a table is no marker
START, PIXELS = b"\xff\xd8", b"\x12\x34\x56"


def frame(marker: int = 0xC0, height: int = 300, width: int = 500, num_components: int = 3) -> bytes:
    components = b"\x01\x22\x00" * num_components
    size = struct.pack(">HBHHB", 8 + len(components), 8, height, width, num_components)
    return bytes([0xFF, marker]) + size + components


def scan(num_components: int = 3) -> bytes:
    return (
        b"\xff\xda"
        + struct.pack(">HB", 6 + 2 * num_components, num_components)
        + bytes(2 * num_components + 3)
    )


def exif(order: str, entries: list[tuple[int, int, int]]) -> bytes:
    """An APP1 with (tag, type, value) in its first directory, after a gap."""
    sign = "<" if order == "II" else ">"
    body = order.encode() + struct.pack(f"{sign}HI", 42, 12) + b"gap!" + struct.pack(f"{sign}H", len(entries))
    for tag, kind, value in entries:
        body += struct.pack(f"{sign}HHIHH", tag, kind, 1, value, 0)
    return b"\xff\xe1" + struct.pack(">H", 8 + len(body)) + b"Exif\0\0" + body


def test_read_jpeg_header_finds_size_and_components() -> None:
    data = START + JFIF + TABLE + frame() + scan() + PIXELS
    at = data.index(b"\xff\xc0") + 5
    assert read_jpeg_header(data) == JpegHeader(300, 500, 3, 1, at)
    assert data[at : at + 2] == (300).to_bytes(2, "big")


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(
    ("entries", "orientation"),
    [
        ([(0x0112, 3, 6)], 6),
        ([(0x010F, 2, 4), (0x0112, 3, 8), (0x0128, 3, 2)], 8),
        ([(0x0112, 3, 9)], 1),  # there are eight
        ([(0x0112, 4, 6)], 1),  # not a short
        ([], 1),
    ],
)
def test_read_jpeg_header_finds_the_orientation(
    order: str, entries: list[tuple[int, int, int]], orientation: int
) -> None:
    data = START + JFIF + exif(order, entries) + frame() + scan() + PIXELS
    assert read_jpeg_header(data).orientation == orientation


@pytest.mark.parametrize("body", [b"XX" + bytes(20), b"II*\0\xff\xff\xff\x00", b"MM\0*\0\0\0\x08\0\x09", b""])
def test_read_jpeg_header_of_damaged_exif_stands_upright(body: bytes) -> None:
    app1 = b"\xff\xe1" + struct.pack(">H", 8 + len(body)) + b"Exif\0\0" + body
    assert read_jpeg_header(START + app1 + frame() + scan() + PIXELS).orientation == 1


def test_read_jpeg_header_passes_fill_bytes_and_surplus_ones() -> None:
    data = START + JFIF + b"\xff\xff" + TABLE + b"\x00\x17" + b"\xff\x01" + frame() + scan() + PIXELS
    assert read_jpeg_header(data).height == 300


@pytest.mark.parametrize("end", range(2, 50, 7))
def test_read_jpeg_header_of_a_truncated_one_says_so(end: int) -> None:
    with pytest.raises(DataError, match="JPEG must be whole, got one that ends before its pixels"):
        read_jpeg_header((START + JFIF + TABLE + frame() + scan())[:end])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (START + scan() + PIXELS, "JPEG must say its size before its pixels, got none"),
        (START + frame(height=0) + scan() + PIXELS, "JPEG must have 1 to 1073741824 pixels, got 500x0"),
        (START + frame(0xC0, 65535, 65535) + scan() + PIXELS, "got 65535x65535"),
    ],
)
def test_read_jpeg_header_without_a_size_says_so(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_jpeg_header(data)


def test_cut_rows_changes_the_height_alone() -> None:
    data = START + JFIF + frame() + scan() + PIXELS
    header = read_jpeg_header(data)
    shorter, height = cut_rows(data, header, 100)
    assert height == 102  # two rows more, from which the last ones are interpolated
    assert bytes(shorter) == data.replace((300).to_bytes(2, "big"), (102).to_bytes(2, "big"))
    assert cut_rows(memoryview(data), header, 298)[1] == 300


@pytest.mark.parametrize(
    ("marker", "num_in_scan", "num_rows"),
    [(0xC2, 3, 10), (0xC9, 3, 10), (0xC0, 1, 10), (0xC0, 3, 300), (0xC0, 3, 299)],
)
def test_cut_rows_that_must_not_be_returns_all(marker: int, num_in_scan: int, num_rows: int) -> None:
    data = START + frame(marker) + scan(num_in_scan) + PIXELS
    whole, height = cut_rows(data, read_jpeg_header(data), num_rows)
    assert whole is data
    assert height == 300
