"""Layers whose values are places: ArgMax, BatchReindex, Embed, Filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import ItemError, UserError
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def arg_max(fields: str) -> str:
    return f'type: "ArgMax" argmax_param {{ {fields} }}'


def embed(fields: str) -> str:
    return f'type: "Embed" embed_param {{ {fields} }}'


def ranked(x: Array, top_k: int) -> tuple[Array, Array]:
    """Return indices and values of the top_k largest of each row of x (N, M): of equals the larger index first."""
    pairs = [sorted(((value, j) for j, value in enumerate(row)), reverse=True)[:top_k] for row in x]
    shape = (len(x), top_k)
    indices = np.reshape([[j for _, j in row] for row in pairs], shape)
    return indices, np.reshape([[value for value, _ in row] for row in pairs], shape)


def ranked_items(x: Array, top_k: int, both: bool = False) -> Array:
    """Return ArgMax over all values of an item."""
    indices, values = ranked(x.reshape(len(x), int(np.prod(x.shape[1:]))), top_k)
    y = np.stack([indices, values], axis=1) if both else indices[:, None]
    return y.reshape(*y.shape, *[1] * (x.ndim - 3))


def ranked_axis(x: Array, axis: int, top_k: int, which: int) -> Array:
    """Return ArgMax along an axis: indices (which 0) or values (1)."""
    moved = np.moveaxis(x, axis, -1)
    rows = ranked(moved.reshape(int(np.prod(moved.shape[:-1])), moved.shape[-1]), top_k)[which]
    return np.moveaxis(rows.reshape(*moved.shape[:-1], top_k), -1, axis)


def look_up(x: Array, weight: Array, bias: Array | float = 0.0) -> Array:
    """Return the rows of weight, one after the other."""
    y = np.empty((*x.shape, weight.shape[1]))
    for place in np.ndindex(*x.shape):
        y[place] = weight[int(x[place])] + bias
    return y


TIES = np.array([[1.0, 3, 3, 0, 3, 1], [2, 2, 2, 2, 2, 2], [-5, -7, -5, -6, -9, -7]])
WORDS = np.array([[3, 0, 3], [4, 3, 1]])

ROWS = (
    Row("argmax", 'type: "ArgMax"', ((3, 7),), partial(ranked_items, top_k=1)),
    Row("argmax-top-k-of-all", arg_max("top_k: 5"), ((3, 2, 4),), partial(ranked_items, top_k=5)),
    Row(
        "argmax-both",
        arg_max("top_k: 3 out_max_val: true"),
        ((3, 2, 2, 3),),
        partial(ranked_items, top_k=3, both=True),
    ),
    Row(
        "argmax-five-axes",
        arg_max("out_max_val: true"),
        ((2, 2, 1, 3, 2),),
        partial(ranked_items, top_k=1, both=True),
    ),
    Row("argmax-one-axis", 'type: "ArgMax"', ((4,),), lambda x: np.zeros((len(x), 1, 1))),
    Row("argmax-ties", 'type: "ArgMax"', (TIES,), partial(ranked_items, top_k=1)),
    Row(
        "argmax-ties-all-both",
        arg_max("top_k: 6 out_max_val: true"),
        (TIES,),
        partial(ranked_items, top_k=6, both=True),
    ),
    Row("argmax-axis", arg_max("axis: 1"), ((2, 5, 3, 2),), partial(ranked_axis, axis=1, top_k=1, which=0)),
    Row(
        "argmax-axis-top-k",
        arg_max("axis: -2 top_k: 4"),
        ((2, 3, 5, 2),),
        partial(ranked_axis, axis=2, top_k=4, which=0),
    ),
    Row(
        "argmax-axis-values",
        arg_max("axis: 2 top_k: 2 out_max_val: true"),
        ((2, 3, 5),),
        partial(ranked_axis, axis=2, top_k=2, which=1),
    ),
    Row(
        "argmax-first-axis",
        arg_max("axis: 0 top_k: 2"),
        (TIES.T,),
        partial(ranked_axis, axis=0, top_k=2, which=0),
        batches=(),
    ),
    Row(
        "batch-reindex",
        'type: "BatchReindex"',
        ((4, 3, 2), [3, 0, 3, 3, 1]),
        lambda x, index: np.stack([x[int(i)] for i in index]),
        batches=(2,),
    ),
    Row(
        "batch-reindex-of-numbers",
        'type: "BatchReindex"',
        ((3,), [2, 2]),
        lambda x, index: x[[2, 2] * (len(index) // 2)],
        batches=(2,),
    ),
    Row("batch-reindex-to-none", 'type: "BatchReindex"', ((3, 2), []), lambda x, i: x[:0], batches=(0,)),
    Row("embed", embed("num_output: 4 input_dim: 5"), (WORDS,), look_up),
    Row("embed-no-bias", embed("num_output: 2 input_dim: 5 bias_term: false"), (WORDS[0],), look_up),
    Row("embed-one-number", embed("num_output: 2 input_dim: 5"), (4,), look_up, batches=()),
    Row(
        "filter-of-all",
        'type: "Filter"',
        ((3, 2), (3, 4, 2), [[1], [0.5], [-2]]),
        lambda x, z, selector: (x, z),
        num_tops=2,
        gradient_tops=(0, 1),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_index_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


X, Z = np.arange(1.0, 11).reshape(5, 2), np.arange(5.0)
SELECTORS = {"some": [1, 0, 0, -2, 0.5], "one": [0, 0, 1, 0, 0], "none": [0] * 5, "all": [1] * 5}


@pytest.mark.parametrize("name", SELECTORS)
def test_filter_passes_what_is_selected_and_its_gradient(name: str) -> None:
    selector = np.asarray(SELECTORS[name], float)
    kept = [i for i in range(5) if selector[i] != 0]
    rig = make_rig('type: "Filter"', [X, Z, selector], num_tops=2)
    assert [blob.shape for blob in rig.top] == [(5, 2), (5,)]  # as Caffe, before the selector is known
    for _ in range(2):
        x, z = rig.forward()
        np.testing.assert_array_equal(x, X[kept])
        np.testing.assert_array_equal(z, Z[kept])
    rig.bottom[0].diff[...] = rig.bottom[1].diff[...] = 7
    rig.backward([10 * X[kept], 10 * Z[kept]])
    for blob, values in zip(rig.bottom, (X, Z), strict=False):
        expected = np.zeros_like(values)
        expected[kept] = 10 * values[kept]
        np.testing.assert_array_equal(blob.diff, expected)


def test_filter_of_several_selections_in_turn_gives_each_its_size() -> None:
    rig = make_rig('type: "Filter"', [X, SELECTORS["one"]])
    for name in ("one", "all", "none", "some"):
        rig.feed([X, np.asarray(SELECTORS[name], float)])
        np.testing.assert_array_equal(rig.forward()[0], X[np.asarray(SELECTORS[name]) != 0])
    rig.feed([X[:2], np.array([0.0, 1])])
    np.testing.assert_array_equal(rig.forward()[0], X[1:2])


def test_filter_refuses_the_selectors_gradient_wherever_the_selector_is() -> None:
    rig = make_rig('type: "Filter"', [X, Z, SELECTORS["one"]], num_tops=2)
    assert rig.layer.no_gradient_bottoms == (2,)
    rig.forward()
    rig.backward([np.ones((1, 2)), np.ones(1)], [False, True, False])
    np.testing.assert_array_equal(rig.bottom[0].diff, np.zeros((5, 2)))
    np.testing.assert_array_equal(rig.bottom[1].diff, [0, 0, 1, 0, 0])


def test_arg_max_of_nan_finds_it() -> None:
    x = [[1.0, np.nan, 3]]
    assert make_rig('type: "ArgMax"', [x]).forward()[0].item() == 1
    assert make_rig(arg_max("top_k: 2"), [x]).forward()[0].ravel().tolist() == [1, 2]


MISTAKES = [
    (arg_max("top_k: 7"), [(2, 6)], 1, "argmax_param.top_k must be 1 to 6, the number of values, got 7"),
    (arg_max("top_k: 0"), [(2, 6)], 1, "argmax_param.top_k must be 1 to 6, the number of values, got 0"),
    (
        arg_max("axis: 1 top_k: 4"),
        [(2, 3, 4)],
        1,
        "argmax_param.top_k must be 1 to 3, the number of values, got 4",
    ),
    (arg_max("axis: 2"), [(2, 6)], 1, "argmax_param.axis must be -2 to 1 for 2 axes, got 2"),
    ('type: "ArgMax"', [()], 1, 'bottom 0 "x0" must have an axis of items, got a scalar'),
    (embed("input_dim: 3"), [(2,)], 1, "embed_param.num_output must be at least 1, got none"),
    (embed("num_output: 3"), [(2,)], 1, "embed_param.input_dim must be at least 1, got none"),
    (
        'type: "BatchReindex"',
        [(3, 2), (2, 1)],
        1,
        'bottom 1 "x1" must have 1 axis (indices), got shape (2, 1)',
    ),
    ('type: "BatchReindex"', [(), (2,)], 1, 'bottom 0 "x0" must have an axis of items, got a scalar'),
    (
        'type: "Filter"',
        [(3, 2), (3,)],
        2,
        "there must be one top for each bottom but the last, the selector: 1, got 2",
    ),
    (
        'type: "Filter"',
        [(3, 2), (3, 2)],
        1,
        'bottom 1 "x1", the selector, must have one value per item, (N) or (N, 1, …), got shape (3, 2)',
    ),
    (
        'type: "Filter"',
        [(3, 2), ()],
        1,
        'bottom 1 "x1", the selector, must have one value per item, (N) or (N, 1, …), got shape ()',
    ),
    (
        'type: "Filter"',
        [(3, 2), (2, 2), (3,)],
        2,
        'bottom 1 "x1" must have as many items as the selector, 3, got shape (2, 2)',
    ),
]


@pytest.mark.parametrize(
    ("layer", "shapes", "num_tops", "message"), MISTAKES, ids=[row[3][:60] for row in MISTAKES]
)
def test_index_layer_mistake_is_one_sentence(
    layer: str, shapes: list[tuple[int, ...]], num_tops: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in shapes], num_tops=num_tops)
    assert str(caught.value) == message


@pytest.mark.parametrize("wrong", [5, -1, 1.5, np.nan])
def test_embed_of_an_index_without_a_row_names_the_item(wrong: float) -> None:
    rig = make_rig(embed("num_output: 2 input_dim: 5"), [[[0, 1], [2, 3], [4, wrong]]])
    with pytest.raises(ItemError) as caught:
        rig.forward()
    assert str(caught.value) == (
        'bottom 0 "x0" must hold whole numbers from 0 to 4 (embed_param.input_dim is the number of rows), got '
        f"{wrong:g}"
    )
    assert caught.value.item == 2


def test_batch_reindex_of_an_item_that_is_not_there_names_the_place() -> None:
    rig = make_rig('type: "BatchReindex"', [np.zeros((3, 2)), [0, 1, 3]])
    with pytest.raises(UserError) as caught:
        rig.forward()
    assert str(caught.value) == (
        'bottom 1 "x1" must hold whole numbers from 0 to 2 (bottom 0 "x0" has 3 items), got 3 at place 2'
    )
