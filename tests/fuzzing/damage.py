"""Random damage to the bytes of a file: what disks, networks and editors do to it, and worse."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

_NUM_STEPS = (1, 1, 1, 2, 4)
_NUM_BITS = (1, 1, 2, 8)
_WORDS = re.compile(rb"\w+|\s+|[^\w\s]")
_EDGES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_RUN_LENGTHS = (1, 2, 4, 8, 100, 5000)


class Damager:
    """Damages one of `samples`; what it does depends on `random` alone.

    Arguments:
        samples: whole files of one kind.
        words: what else is inserted: pieces that mean something in such a file. A format that has any is taken
            for text, of which words are also exchanged.
    """

    def __init__(self, samples: Sequence[bytes], words: Sequence[bytes] = ()) -> None:
        self._samples = samples
        self._words = words
        self._steps: tuple[Callable[[Random, bytes], bytes], ...] = (
            self._flip_bits,
            self._overwrite,
            self._delete,
            self._insert,
            self._truncate,
            self._repeat,
            self._splice,
            *([self._exchange_words] * 7 if words else []),  # text: half of all steps
        )

    def damage(self, random: Random) -> bytes:
        """Return the bytes of a sample after some steps of damage, most often one."""
        content = random.choice(self._samples)
        for _ in range(random.choice(_NUM_STEPS)):
            content = random.choice(self._steps)(random, content)
        return content

    def _flip_bits(self, random: Random, content: bytes) -> bytes:
        flipped = bytearray(content)
        for _ in range(random.choice(_NUM_BITS) if flipped else 0):
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
        return bytes(flipped)

    def _overwrite(self, random: Random, content: bytes) -> bytes:
        start, end = _span(random, content)
        return content[:start] + self._piece(random, end - start)[: end - start] + content[end:]

    def _delete(self, random: Random, content: bytes) -> bytes:
        start, end = _span(random, content)
        return content[:start] + content[end:]

    def _insert(self, random: Random, content: bytes) -> bytes:
        at = random.randint(0, len(content))
        return content[:at] + self._piece(random, random.choice(_RUN_LENGTHS)) + content[at:]

    def _truncate(self, random: Random, content: bytes) -> bytes:
        return content[: random.randint(0, len(content))]

    def _repeat(self, random: Random, content: bytes) -> bytes:
        start, end = _span(random, content)
        return content[:end] + content[start:]

    def _splice(self, random: Random, content: bytes) -> bytes:
        other = random.choice(self._samples)
        return content[: random.randint(0, len(content))] + other[random.randint(0, len(other)) :]

    def _exchange_words(self, random: Random, content: bytes) -> bytes:
        """Put one or two words or signs of any sample, or none, in the place of others."""
        pieces = _WORDS.findall(content)
        for _ in range(random.choice((1, 1, 2)) if pieces else 0):
            other = random.choice(_WORDS.findall(random.choice(self._samples)))
            pieces[random.randrange(len(pieces))] = random.choice(
                (other, other, b"", random.choice(self._words))
            )
        return b"".join(pieces)

    def _piece(self, random: Random, num_bytes: int) -> bytes:
        """Return about `num_bytes` bytes of one kind: a word, one byte again and again, or any bytes."""
        kind = random.randrange(3)
        if kind == 0 and self._words:
            return random.choice(self._words)
        if kind == 1:
            return bytes([random.choice((*_EDGES, random.randrange(256)))]) * num_bytes
        return random.randbytes(num_bytes)


def _span(random: Random, content: bytes) -> tuple[int, int]:
    """Return where a piece of `content` begins and ends; most are short."""
    start = random.randint(0, len(content))
    longest = random.choice((1, 4, 16, 64, len(content)))
    return start, min(len(content), start + random.randint(0, longest))
