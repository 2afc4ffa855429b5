"""Tests of data/window_file.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.data.errors import DataError
from dtrain.data.window_file import WindowFile

TWO_IMAGES = """# 0
a.jpg
3
375
500
4
2 0.7 1 2 30 40
0 0.5 0 0 499 374
5 0.3 5 6 7 8
9 0 -3 -4 600 9

# 1
sub/b.png
3 100 200
2
1 1.000 0 0 1 1
4 0.499 1 1 2 2
"""


def write(folder: Path, text: str) -> str:
    path = folder / "windows.txt"
    path.write_text(text)
    return str(path)


def test_window_file_sorts_windows_by_their_overlap(tmp_path: Path) -> None:
    text = TWO_IMAGES.replace("0 0.5 0 0 499", "3 0.5 0 0 499")
    windows = WindowFile(write(tmp_path, text), fg_threshold=0.5, bg_threshold=0.4)
    assert windows.image_paths == ["a.jpg", "sub/b.png"]
    assert len(windows) == 5
    assert windows.images.tolist() == [0, 0, 0, 0, 1]
    assert windows.labels.tolist() == [2, 3, 0, 0, 1]  # background has class 0, whatever the file says
    assert windows.boxes.tolist() == [
        [1, 2, 30, 40],
        [0, 0, 499, 374],
        [5, 6, 7, 8],
        [-3, -4, 600, 9],
        [0, 0, 1, 1],
    ]
    assert windows.foreground.tolist() == [0, 1, 4]
    assert windows.background.tolist() == [2, 3]
    assert windows.line(4) == f"{windows.path}:16"


def test_window_file_compares_overlaps_in_single_precision(tmp_path: Path) -> None:
    text = "# 0\na.jpg\n3\n9\n9\n2\n1 0.7 0 0 1 1\n1 0.69999999 0 0 1 1\n"
    windows = WindowFile(write(tmp_path, text), fg_threshold=0.7, bg_threshold=0.7)
    assert windows.foreground.tolist() == [0, 1]  # both are 0.7 as a float32


@pytest.mark.parametrize("text", ["# 0\na.jpg\n3\n5\n5\n0\n", "# 0\na.jpg\n3\n5\n5\n1\n1 0.5 0 0 1 1\n"])
def test_window_file_without_windows_to_keep_has_none(text: str, tmp_path: Path) -> None:
    windows = WindowFile(write(tmp_path, text), fg_threshold=0.6, bg_threshold=0.4)
    assert (len(windows), windows.image_paths) == (0, ["a.jpg"])
    assert windows.foreground.size == windows.background.size == 0


HEAD = "# 0\na.jpg\n3\n5\n5\n2\n"
WINDOW = "1 0.8 0 0 1 1\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", " window file must have at least one image, got none"),
        (
            "#0\na.jpg\n3\n5\n5\n2\n1\n",
            "7: an image must begin with `# number`, path, .* each on its line, got ",
        ),
        ("# 0\na.jpg\n3\n5\n", "4: file must not end within the six lines that open an image"),
        ("# 0\na b.jpg\n3\n5\n5\n0\n", "5: an image must begin with `# number`, path, .* got "),
        (f"# 0\na.jpg\n3\n5\n{'5' * 5000}\n0\n", "6: an image must begin with `# number`, path, .* got "),
        ("# 0\na.jpg\n3\n5\n5\n1 2\n", "6: an image must begin with `# number`, path, .* got "),
        ("# 0\na.jpg\n3\n5\n5\n-1\n", '6: an image must begin .*, got "# 0 a.jpg 3 5 5 -1"'),
        ("# 1\na.jpg\n3\n5\n5\n0\n", "6: images must be numbered 0, 1, 2 …, got 1 for 0"),
        ("# 0\na.jpg\n1\n5\n5\n0\n", "6: channels must be 3, as images are read in colour, got 1"),
        (HEAD + WINDOW, "7: 2 windows must follow, got 1"),
        (HEAD + WINDOW + "1 0.8 0 0 1\n", '8: window must be six numbers, .*, got "1 0.8 0 0 1"'),
        (HEAD + WINDOW + "1 x 0 0 1 1\n", '8: window must be six numbers, .*, got "1 x 0 0 1 1"'),
        (HEAD + WINDOW + "1 nan 0 0 1 1\n", '8: window must be six numbers, .*, got "1 nan 0 0 1 1"'),
        (HEAD + "\n" + WINDOW, '7: window must be six numbers, .*, got ""'),
        (HEAD + WINDOW + "1 0.8 0.5 0 1 1\n", "8: class and box must be whole numbers, got 1 0.8 0.5 0 1 1"),
        (HEAD + WINDOW + "1 0.8 0 0 1 1e10\n", "8: class and box must be whole numbers, got "),
        (HEAD + WINDOW + "1 0.8 2 0 1 1\n", "8: x1 must be at most x2, and y1 at most y2, got 1 0.8 2 0 1 1"),
        (HEAD + WINDOW + "1 0.1 0 2 1 1\n", "8: x1 must be at most x2, and y1 at most y2, got 1 0.1 0 2 1 1"),
        (HEAD + WINDOW + "0 0.8 0 0 1 1\n", r"8: class of a window of overlap 0.8 must be at least 1, got 0"),
    ],
)
def test_window_file_of_another_form_names_the_line(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}/windows.txt:{problem}"):
        WindowFile(write(tmp_path, text))


def test_window_file_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: window file must be readable, got: No such file"):
        WindowFile(str(tmp_path / "none"))
