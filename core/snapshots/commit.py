"""Put a snapshot's files in place whole or not at all, with their checksums.

The snapshot stage's only way to the disk: every file is written under a temporary name in its own folder,
brought to the disk (fsync) and checksummed on the way; when all are there, they are renamed in order, each
only after the name before it is on the disk too. A crash at any moment leaves what was there before, or
lacks the last file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Part, buffer_of, num_bytes
from dtrain.core.snapshots.checksum import FileRecord, RunningChecksum

TEMPORARY_SUFFIX = ".partial"

_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)


class Commit:
    """Collect files under temporary names and rename them all when the `with` block ends well.

    When the block raises, or a file cannot be written, the temporary files are removed and nothing that
    existed is touched.

    Arguments:
        needed_bytes: the size of all files together, for the message of a full disk.
    """

    def __init__(self, needed_bytes: int) -> None:
        self._needed_bytes = needed_bytes
        self._staged: list[tuple[Path, Path]] = []

    def __enter__(self) -> Commit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self.discard()

    def add(self, path: Path, parts: Sequence[Part]) -> FileRecord:
        """Write a file under a temporary name and return its record.

        Arguments:
            path: the name that it will have; files appear in the order in which they are added.
            parts: its content.
        Raises:
            UserError: the file cannot be written.
        """
        temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        with self._explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Left by a killed process; in containers process numbers repeat.
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self._staged.append((temporary, path))
            try:
                record = _write_parts(descriptor, parts)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return record

    def sweep(self, folder: Path, name_start: str) -> None:
        """Remove the temporary files that a killed process left of files whose names begin with `name_start`.

        Raises:
            UserError: the folder cannot be read or changed.
        """
        with self._explained(folder / name_start):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name.startswith(name_start) and path.name.endswith(TEMPORARY_SUFFIX):
                    path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the temporary files that are left."""
        for temporary, _ in self._staged:
            temporary.unlink(missing_ok=True)

    def _publish(self) -> None:
        for temporary, path in self._staged:
            with self._explained(path):
                os.replace(temporary, path)
                _sync_folder(path.parent)

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        """Turn an OSError into the sentence for the user."""
        try:
            yield
        except OSError as error:
            self.discard()  # before the free space is measured
            raise UserError(
                f"cannot write snapshot {path}: {error.strerror}; {self._advice(error, path)}; "
                "earlier snapshots are intact"
            ) from error

    def _advice(self, error: OSError, path: Path) -> str:
        if error.errno not in _NO_SPACE:
            return "snapshot_prefix must begin with a folder where files can be made"
        free_bytes = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir())).free
        return f"{_megabytes(self._needed_bytes)} were needed, {_megabytes(free_bytes)} are free"


def commit_file(path: str | os.PathLike[str], parts: Sequence[Part]) -> None:
    """Write one file, whole or not at all; raises UserError when the disk refuses."""
    with Commit(num_bytes(parts)) as commit:
        commit.add(Path(path), parts)


def _write_parts(descriptor: int, parts: Sequence[Part]) -> FileRecord:
    checksum = RunningChecksum()
    for part in parts:
        for piece in checksum.pieces(buffer_of(part)):
            written = 0
            while written < len(piece):
                written += os.write(descriptor, piece[written:])
    return checksum.record()


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they keep names by other means.
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _megabytes(num: int) -> str:
    return f"{num / 1e6:.1f} MB"
