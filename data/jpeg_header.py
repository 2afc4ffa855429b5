"""Reads what stands in front of a JPEG's pixels: size, channels, orientation; and cuts off rows at the bottom.

Read by the codec before it decodes. Follows ITU T.81 (the markers), TIFF 6.0 and Exif 2.3 (the orientation).
"""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.data.errors import DataError

SIGNATURE = b"\xff\xd8\xff"

Buffer = bytes | bytearray | memoryview

_APP1, _START_OF_SCAN = 0xE1, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the others of the row are tables
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a segment
_EXIF = b"Exif\0\0"
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_IFD_ENTRY_BYTES = 12
_MAX_PIXELS = 1 << 30  # as OpenCV; more is a damaged header
# Rows below a cut that the last ones above it are interpolated from: those of one row of chroma.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What a JPEG says of itself.

    height, width: as stored. num_components: 1 grey, 3 colours, 4 CMYK. orientation: 1 … 8 as Exif numbers
    them, 1 where none is given. height_at: where the two bytes of the height are, if rows can be cut off, or 0.
    """

    height: int
    width: int
    num_components: int
    orientation: int
    height_at: int


def read_jpeg_header(data: Buffer) -> JpegHeader:
    """Read the markers of `data` up to the first scan. Raises DataError when they are damaged or cut short."""
    try:
        return _read_markers(data)
    except IndexError:
        raise DataError("JPEG must be whole, got one that ends before its pixels") from None


def cut_rows(data: Buffer, header: JpegHeader, num_rows: int) -> tuple[Buffer, int]:
    """Return a JPEG whose first num_rows rows are those of `data`, and how many rows it has.

    Only the height in the header changes, so that decoding ends early; the rest of the scan is then surplus,
    which decoders warn of. Where rows can't be cut off, `data` is returned with all its rows.
    """
    height = min(num_rows + _MARGIN, header.height)
    if not header.height_at or height == header.height:
        return data, header.height
    shorter = bytearray(data)
    shorter[header.height_at : header.height_at + 2] = height.to_bytes(2, "big")
    return shorter, height


def _read_markers(data: Buffer) -> JpegHeader:
    offset, orientation = 2, 1
    frame, frame_marker = 0, 0
    while True:
        while data[offset] != 0xFF or data[offset + 1] in (0x00, 0xFF):  # fill bytes, or surplus ones
            offset += 1
        marker = data[offset + 1]
        if marker in _ALONE:
            offset += 2
            continue
        end = offset + 2 + _read_16(data, offset + 2)
        if marker in _FRAMES:
            frame, frame_marker = offset + 4, marker
        elif marker == _APP1 and data[offset + 4 : offset + 10] == _EXIF:
            orientation = _read_orientation(bytes(data[offset + 10 : end]))
        elif marker == _START_OF_SCAN:
            break
        offset = end
    if not frame:
        raise DataError("JPEG must say its size before its pixels, got none; it is damaged")
    height, width, num_components = _read_16(data, frame + 1), _read_16(data, frame + 3), data[frame + 5]
    if not 0 < height * width <= _MAX_PIXELS:
        raise DataError(f"JPEG must have 1 to {_MAX_PIXELS} pixels, got {width}x{height}")
    # Only where a single scan holds all components do its first bytes hold the first rows.
    can_cut = frame_marker in _SEQUENTIAL_FRAMES and data[offset + 4] == num_components
    return JpegHeader(height, width, num_components, orientation, frame + 1 if can_cut else 0)


def _read_orientation(tiff: bytes) -> int:
    """Return the orientation that a TIFF header with its first directory gives, or 1."""
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    directory = number(4, 4)
    for entry in range(
        directory + 2, directory + 2 + _IFD_ENTRY_BYTES * number(directory, 2), _IFD_ENTRY_BYTES
    ):
        if entry + _IFD_ENTRY_BYTES > len(tiff):
            return 1
        if number(entry, 2) == _ORIENTATION_TAG and number(entry + 2, 2) == _SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _read_16(data: Buffer, at: int) -> int:
    return data[at] << 8 | data[at + 1]
