"""Tables as lines of text that fit a page: for what commands print about the layers of a net."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100

_MARGIN = "  "
_SHORTEST = 8  # to which a text may be cut


def table_lines(rows: Sequence[Sequence[str]], num_texts: int, width: int = WIDTH) -> list[str]:
    """Return the rows with their columns padded to one width: the first `num_texts` hold texts, the others numbers.

    Texts that would make lines longer than `width` are cut in their middle, where names differ least, those of the
    widest column first; with width 0 none are.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    while width and sum(widths) + len(_MARGIN) * len(widths) > width:
        widest = max(range(num_texts), key=lambda column: widths[column])
        if widths[widest] <= _SHORTEST:
            break
        widths[widest] -= 1
    return [_line(row, widths, num_texts) for row in rows]


def short_number(value: float) -> str:
    """Return a count to four digits: 0, 512, 1.536k, 105.4M, 2.27G."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def _line(row: Sequence[str], widths: Sequence[int], num_texts: int) -> str:
    texts = [_cut(cell, width).ljust(width) for cell, width in zip(row[:num_texts], widths, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(row[num_texts:], widths[num_texts:], strict=True)]
    return (_MARGIN + _MARGIN.join([*texts, *numbers])).rstrip()


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    num_last = (width - 1) // 2
    return f"{text[: width - 1 - num_last]}…{text[len(text) - num_last :]}"
