"""When values die: hand-made graphs with the answer by hand, and random ones against every use written out."""

from __future__ import annotations

import random

import pytest

from dtrain.core.net.lifetimes import LayerUse, Lifetimes, Value, find_lifetimes, most_alive_bytes


def data(name: str) -> Value:
    return Value(name)


def diff(name: str) -> Value:
    return Value(name, is_diff=True)


def layer(bottoms: str, tops: str, gives: bool | None = None, reads: str = "xy") -> LayerUse:
    """Return a layer's use of its blobs, named by letters. gives: a diff to all bottoms; None: no backward.

    reads: what backward looks at, x (bottoms), y (tops), both or none.
    """
    runs = gives is not None
    return LayerUse(
        tuple(bottoms), tuple(tops), runs, (bool(gives),) * len(bottoms), "x" in reads, "y" in reads
    )


def deaths(lifetimes: Lifetimes) -> dict[str, str]:
    """Return when each value dies: F2 after forward of layer 2, B0 after backward of layer 0. Diffs are capitals."""
    found = {}
    for letter, steps in (("F", lifetimes.after_forward), ("B", lifetimes.after_backward)):
        for i, step in enumerate(steps):
            for value in step:
                name = value.blob.upper() if value.is_diff else value.blob
                assert name not in found, "nothing dies twice"
                found[name] = f"{letter}{i}"
    return found


# data(0) → conv(1) → relu in place(2) → pool(3) → ip(4) → loss(5)
CHAIN = [
    layer("", "dl"),
    layer("d", "c", False, "x"),
    layer("c", "c", True, "xy"),
    layer("c", "p", True, ""),
    layer("p", "i", True, "x"),
    layer("il", "e", True, "xy"),
]


def test_lifetimes_of_a_chain_in_training_end_with_the_last_backward_that_reads_or_makes_them() -> None:
    assert deaths(find_lifetimes(CHAIN, kept="e")) == {
        "d": "B1",  # conv's weight gradient reads its bottom
        "l": "B5",
        "c": "B2",  # relu reads it, pool does not, conv only made it
        "p": "B4",
        "i": "B5",  # ip itself does not read its top
        "C": "B1",
        "P": "B3",
        "I": "B4",
        "L": "B5",  # given too, though nobody wants it
    }


def test_lifetimes_of_a_chain_in_tests_end_with_the_last_reader() -> None:
    found = deaths(find_lifetimes(CHAIN, kept="e", trains=False))
    assert found == {"d": "F1", "l": "F5", "c": "F3", "p": "F4", "i": "F5"}


def test_lifetimes_of_what_backward_does_not_read_end_in_forward() -> None:
    layers = [layer("", "d"), layer("d", "a"), layer("a", "b", True, ""), layer("b", "e", True, "")]
    assert deaths(find_lifetimes(layers, kept="e")) == {
        "d": "F1",
        "a": "F2",
        "b": "F3",
        "A": "B2",  # what is below has no backward
        "B": "B2",
    }


def test_lifetimes_of_shared_values_end_together() -> None:
    # a is shown as b and c by a Split; b's reader is done in forward, c's not before its backward
    layers = [
        layer("", "a"),
        layer("a", "bc", True, ""),
        layer("b", "x", True, ""),
        layer("c", "y", True, "x"),
        layer("xy", "e", True, ""),
    ]
    together = [data("a"), data("b"), data("c")]
    found = deaths(find_lifetimes(layers, kept="e", shared=[together]))
    assert (found["a"], found["b"], found["c"]) == ("B3", "B3", "B3")
    apart = deaths(find_lifetimes(layers, kept="e"))
    assert (apart["a"], apart["b"], apart["c"]) == ("F1", "F2", "B3")


def test_lifetimes_of_values_shared_in_several_ways_are_one_group() -> None:
    layers = [layer("", "a"), layer("a", "b"), layer("b", "c"), layer("c", "e")]
    shared = [[data("a"), data("b")], [data("b"), data("c")]]
    assert deaths(find_lifetimes(layers, kept="e", shared=shared)) == {"a": "F3", "b": "F3", "c": "F3"}


def test_lifetimes_of_a_group_with_a_kept_blob_have_no_end() -> None:
    layers = [layer("", "a"), layer("a", "b"), layer("b", "e")]
    shared = [[data("a"), data("k")], [data("a"), data("b")]]
    assert deaths(find_lifetimes(layers, kept="e", shared=shared)) == {"a": "F2", "b": "F2"}
    assert deaths(find_lifetimes(layers, kept="ek", shared=shared)) == {}


def test_lifetimes_leave_out_diffs_that_no_backward_writes() -> None:
    # layer 1 has two tops, and only a's reader gives it a diff: that of b stays 0 and must not be lost
    layers = [layer("", "d"), layer("d", "ab", True), layer("a", "e", True), layer("b", "f")]
    found = deaths(find_lifetimes(layers, kept="ef"))
    assert "B" not in found
    assert found["A"] == "B1"


# d → a → b → c → e, where a and b are computed again before c's layer runs backward
AGAIN = [
    layer("", "d"),
    layer("d", "a", True, "x"),
    layer("a", "b", True, "x"),
    layer("b", "c", True, "x"),
    layer("c", "e", True, "x"),
]


def test_lifetimes_of_what_is_computed_again_end_twice() -> None:
    found = find_lifetimes(AGAIN, kept="e", again={3: [1, 2]})
    names = [
        [[v.blob.upper() if v.is_diff else v.blob for v in step] for step in steps]
        for steps in (found.after_forward, found.after_again, found.after_backward)
    ]
    assert names[0] == [[], [], ["a"], ["b"], []]
    assert names[1] == [[], [], [], [], []]
    assert [sorted(step) for step in names[2]] == [[], ["A", "D", "d"], ["B", "a"], ["C", "b"], ["c"]]
    assert len(found.values) == 8, "each once"


def test_most_alive_bytes_is_less_where_values_are_computed_again() -> None:
    sizes = {value: (number, 1) for number, value in enumerate(find_lifetimes(AGAIN, kept="e").values)}
    kept = find_lifetimes(AGAIN, kept="e")
    # all data, and c's diff; with recomputation d, c and C, then a, and b in its turn
    assert most_alive_bytes(AGAIN, kept, {}, sizes) == 5
    again = {3: [1, 2]}
    assert most_alive_bytes(AGAIN, find_lifetimes(AGAIN, kept="e", again=again), again, sizes) == 5
    late = {2: [1]}
    assert most_alive_bytes(AGAIN, find_lifetimes(AGAIN, kept="e", again=late), late, sizes) == 4


def test_lifetimes_of_no_layers_are_none() -> None:
    assert find_lifetimes([]) == Lifetimes((), (), ())


@pytest.mark.parametrize("seed", range(30))
def test_lifetimes_of_random_graphs_end_exactly_behind_the_last_use(seed: int) -> None:
    draw = random.Random(seed)
    layers, blobs, unread = [LayerUse((), ("b0",))], ["b0"], {"b0"}
    for i in range(1, 25):
        bottoms = tuple(draw.sample(sorted(unread), min(len(unread), draw.randint(1, 2))))
        in_place = draw.random() < 0.3
        tops = bottoms[:1] if in_place else tuple(f"b{i}_{k}" for k in range(draw.randint(1, 3)))
        unread = (unread - set(bottoms)) | set(tops)
        blobs += [name for name in tops if name not in blobs]
        gives = tuple(draw.random() < 0.8 for _ in bottoms)
        reads = draw.random() < 0.5, draw.random() < 0.5
        layers.append(LayerUse(bottoms, tops, draw.random() < 0.8, gives, *reads))
    lifetimes = find_lifetimes(layers, kept=unread)
    steps = [*lifetimes.after_forward, *reversed(lifetimes.after_backward)]
    died_at = {value: k for k, step in enumerate(steps) for value in step}
    assert sum(map(len, steps)) == len(died_at)
    for name in blobs:
        for value in (data(name), diff(name)):
            uses = _uses(layers, value)
            is_written = any(_writes(each, value) for each in layers)
            expected = uses[-1] if name not in unread and is_written else None
            assert died_at.get(value) == expected, value


def _writes(use: LayerUse, value: Value) -> bool:
    if not value.is_diff:
        return value.blob in use.tops
    return use.runs_backward and any(
        gives and name == value.blob for name, gives in zip(use.bottoms, use.gives, strict=True)
    )


def _uses(layers: list[LayerUse], value: Value) -> list[int]:
    """Return every step of a pass in which `value` is touched, as the words of Layer say it."""
    steps = []
    for k in range(2 * len(layers)):
        is_forward = k < len(layers)
        use = layers[k if is_forward else 2 * len(layers) - 1 - k]
        if is_forward:
            touches = not value.is_diff and value.blob in (*use.bottoms, *use.tops)
        elif not use.runs_backward:
            touches = False
        elif value.is_diff:
            touches = value.blob in use.tops or _writes(use, value)
        else:
            touches = (use.reads_bottoms and value.blob in use.bottoms) or (
                use.reads_tops and value.blob in use.tops
            )
        if touches:
            steps.append(k)
    return steps
