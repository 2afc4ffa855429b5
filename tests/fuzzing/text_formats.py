"""Files that people write: nets, solvers, and lists of images and of windows."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from dtrain.core.graph.graph import build_graph
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.prototxt import read_text
from dtrain.core.solver.recipe import read_recipe
from dtrain.data.image_list import ImageList
from dtrain.data.window_file import WindowFile
from dtrain.proto import caffe_pb2
from tests.fuzzing import prototxts
from tests.fuzzing.format import Format, look_at

LIST_WORDS = (b" ", b"\n", b"#", b"-1", b"1.5", b"nan", b"1e30", b"\xff", b"\x00", b"9" * 5000, "٣".encode())


def make_nets(folder: Path) -> list[bytes]:
    """Return nets of three generations."""
    return [text.encode() for text in prototxts.NETS]


def read_net(path: Path) -> None:
    """Read a net up to its graph; where protobuf's own reader takes the text too, it must say the same."""
    document = read_text(path, caffe_pb2.NetParameter)
    compare_with_protobuf(path, document.message)
    build_graph(upgrade_net(document), caffe_pb2.NetState(phase=caffe_pb2.TRAIN))


def compare_with_protobuf(path: Path, message: Message) -> None:
    """Raise AssertionError if protobuf reads something else from the file than `message`."""
    try:
        other = text_format.Parse(path.read_bytes(), type(message)())
    except (text_format.ParseError, UnicodeDecodeError):
        return
    same = message.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert same, f"protobuf reads {other}, dtrain {message}"


def make_solvers(folder: Path) -> list[bytes]:
    """Return solver files of the net that is put beside them."""
    (folder / "net.prototxt").write_text(prototxts.NETS[0])
    return [text.encode() for text in prototxts.SOLVERS]


def make_image_lists(folder: Path) -> list[bytes]:
    """Return a list of three images."""
    return ["a.jpg 0\nfolder/größe 2.png 12\nb.jpg -1\n".encode()]


def make_window_files(folder: Path) -> list[bytes]:
    """Return the windows of two images."""
    first = "# 0\na.jpg\n3\n20\n30\n2\n1 0.75 0 0 9 9\n0 0.25 3 4 19 18\n"
    return [f"{first}# 1\nfolder/b.jpg\n3\n8\n8\n1\n2 1.0 0 0 7 7\n".encode()]


def read_windows(path: Path) -> None:
    """Read a window file."""
    windows = WindowFile(str(path))
    look_at(windows.boxes)


TEXT_FORMATS = (
    Format("net", "net.prototxt", make_nets, read_net, prototxts.WORDS),
    Format("solver", "solver.prototxt", make_solvers, lambda path: read_recipe(str(path)), prototxts.WORDS),
    Format("image list", "train.txt", make_image_lists, lambda path: ImageList(str(path)), LIST_WORDS),
    Format("windows", "windows.txt", make_window_files, read_windows, LIST_WORDS),
)
