"""The files that dtrain reads: a table of their formats.

To fuzz another format, add a row to one of the three lists: its name, its file's name, how whole files are made, how
one is read (see format.py).

Not here: the pages of LMDB and the tables of LevelDB. lmdb maps its pages and checks nothing, and LevelDB asks for
as much memory as a damaged table says, so that damage there may end the process within the library itself. The
records in them are here, as datum.
"""

from __future__ import annotations

from tests.fuzzing.data_formats import DATA_FORMATS
from tests.fuzzing.snapshot_formats import SNAPSHOT_FORMATS
from tests.fuzzing.text_formats import TEXT_FORMATS

FORMATS = {row.name: row for row in (*TEXT_FORMATS, *SNAPSHOT_FORMATS, *DATA_FORMATS)}
