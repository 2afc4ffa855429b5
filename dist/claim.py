"""The claim to speak for the job: of several ranks that fail on a host, only the first prints.

In the flow prototxt → graph → net → solver → communicator → snapshot any stage may fail; failure.py and the
launcher ask here whether the line has been printed already. A file decides, since failing ranks cannot be
asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

# A rank that is not the first to fail waits so long for the first one's abort, lest it cut off its line.
GRACE_S = 1.0
FRESH_S = 20.0  # an older claim is another launch's, should two ever share a job id
FORGOTTEN_S = 3600.0  # aborted ranks cannot remove their claim; whoever claims next on the host does


class Claim:
    """The right to report the failure of one job on one host.

    Arguments:
        job_id: any text that all ranks of the job share and no other job has.
        folder: where the claim files are; by default the host's temporary folder.
    """

    def __init__(self, job_id: str, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = Path(folder if folder is not None else tempfile.gettempdir())
        self._prefix = f"dtrain-{os.getuid()}-"
        digest = hashlib.blake2b(job_id.encode(), digest_size=8).hexdigest()
        self.path = self._folder / f"{self._prefix}{digest}.failed"

    def take(self) -> bool:
        """Return True to the first rank of the host that calls this, False to the others. Not collective."""
        try:
            self._remove_older_than(FORGOTTEN_S, f"{self._prefix}*.failed")
            self._remove_older_than(FRESH_S, self.path.name)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return True  # no usable temporary folder: better a line twice than never
        return True

    def give_back(self) -> None:
        """Let another rank, or this rank's supervisor, speak: this one could not. Only for the rank that took it."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def is_taken(self) -> bool:
        """Return whether a rank of the host has claimed to speak, so that the job is failing. Not collective."""
        try:
            return time.time() - self.path.stat().st_mtime <= FRESH_S
        except OSError:
            return False

    def _remove_older_than(self, age_s: float, pattern: str) -> None:
        for path in self._folder.glob(pattern):
            # Another rank may remove the same file between the two calls.
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > age_s:
                    path.unlink()
