"""Read and write .caffemodel.h5 files: a net's layers with their trained blobs, in HDF5.

The same layers as in `caffemodel`, in the form of snapshot_format: HDF5, which has no limit of 2 GB. Follows
Net::ToHDF5 and Net::CopyTrainedLayersFromHDF5 of Caffe's net.cpp: a group /data/<layer> for each layer, with its
own params as the datasets 0, 1, …, those left out that another layer owns; with snapshot_diff the gradients of all
params in /diff/<layer>. A layer's type is not kept.

Beyond Caffe, which fails on such names: a layer called inception/1x1 becomes nested groups, which dtrain reads.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dtrain.core.errors import Problems
from dtrain.core.snapshots.blob_proto import Array, Part
from dtrain.core.snapshots.caffemodel import LayerRecord, LayerWeights, check_diffs
from dtrain.core.snapshots.commit import commit_file
from dtrain.core.snapshots.hdf5_file import Group, StructureError, array_of, is_group, members_of, read_hdf5
from dtrain.core.snapshots.hdf5_layout import Hdf5Layout
from dtrain.core.snapshots.message_file import CAFFEMODEL

log = logging.getLogger(__name__)

_DATA, _DIFF = "data", "diff"
_FIX = "rename the layer or set snapshot_format: BINARYPROTO"
_MAX_PARAMS = 1000
_MAX_DEPTH = 64


def write_hdf5_model(path: str | os.PathLike[str], net_name: str, layers: Iterable[LayerRecord]) -> None:
    """Write a .caffemodel.h5 that Caffe loads; the file appears whole or not at all.

    Arguments:
        path: where; an existing file is replaced.
        net_name: not kept in HDF5.
        layers: in the net's order.
    Raises:
        UserError: h5py is not installed, a layer's name can't be, or the disk refuses.
    """
    commit_file(path, encode_hdf5_model(path, net_name, layers))


def encode_hdf5_model(
    path: str | os.PathLike[str], net_name: str, layers: Iterable[LayerRecord]
) -> list[Part]:
    """Return the bytes of a .caffemodel.h5, in order: headers, and the arrays themselves.

    The arrays must not change until they are written. `net_name` has no place in HDF5.

    Raises:
        UserError: h5py is not installed, or a layer's name can't be in HDF5; `path` is named.
    """
    records = list(layers)
    _check_names(path, records)
    layout = Hdf5Layout(Path(path))
    data = layout.root.create_group(_DATA)
    diff = layout.root.create_group(_DIFF) if any(record.diffs for record in records) else None
    for record in records:
        check_diffs(record)
        owned = [(i, blob) for i, blob in enumerate(record.blobs) if i not in record.shared]
        _add_layer(layout, data, record.parameter.name, owned)
        if diff is not None:
            _add_layer(layout, diff, record.parameter.name, list(enumerate(record.diffs)))
    return layout.finish()


def read_hdf5_model(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """Read the layers of a .caffemodel.h5; its arrays are read-only views of the file.

    Raises:
        UserError: h5py is not installed, or the file is missing, unreadable, damaged, or a .solverstate.
    """
    return read_hdf5(path, CAFFEMODEL, _read_net)


def _check_names(path: str | os.PathLike[str], layers: Sequence[LayerRecord]) -> None:
    """Raise UserError with every layer whose name can't name a group of its own; warn of those beyond Caffe."""
    problems = Problems()
    params = {f"{layer.parameter.name}/{i}" for layer in layers for i in range(len(layer.blobs))}
    counts = Counter(layer.parameter.name for layer in layers)
    for name, count in counts.items():
        steps = name.split("/")
        if count > 1:
            problems.add(f'{path}: layers must have names of their own in HDF5, got "{name}" twice; {_FIX}')
        if "\0" in name or "" in steps or "." in steps:
            problems.add(f'{path}: layer "{name}" can\'t be a group in HDF5, by its name; {_FIX}')
        if any("/".join(steps[:depth]) in params for depth in range(2, len(steps) + 1)):
            problems.add(f'{path}: layer "{name}" has the path of another layer\'s param in HDF5; {_FIX}')
    problems.raise_if_any()
    nested = next((name for name in counts if "/" in name), None)
    if nested is not None:
        log.warning('%s: Caffe finds no layer in HDF5 whose name has a /, such as "%s"', path, nested)


def _add_layer(layout: Hdf5Layout, parent: Group, name: str, arrays: Sequence[tuple[int, Array]]) -> None:
    group = parent.require_group(name)
    for i, array in arrays:
        layout.add_array(group, str(i), array)


def _read_net(root: Group, view: memoryview) -> list[LayerWeights]:
    if _DATA not in root or not is_group(root[_DATA]):
        raise StructureError(f"no group /{_DATA}")
    return list(_read_layers(root[_DATA], "", view, 0))


def _read_layers(group: Group, prefix: str, view: memoryview, depth: int) -> Iterator[LayerWeights]:
    """Yield the layers in a group: the groups in it, and those nested in them."""
    if depth > _MAX_DEPTH:
        raise StructureError("groups that hold themselves")
    for name, member in members_of(group):
        if is_group(member):
            params, has_groups = _read_params(member, view)
            if params or not has_groups:
                yield LayerWeights(f"{prefix}{name}", "", params, owned_only=True)
            if has_groups:
                yield from _read_layers(member, f"{prefix}{name}/", view, depth + 1)
        elif depth == 0:
            raise StructureError(f"a dataset {member.name} where layers' groups should be")


def _read_params(group: Group, view: memoryview) -> tuple[tuple[Array | None, ...], bool]:
    """Return a layer's params, None for those that another layer owns, and whether the group has groups too."""
    arrays: dict[int, Array] = {}
    has_groups = False
    for name, member in members_of(group):
        if is_group(member):  # a layer whose name begins with this one's
            has_groups = True
        elif name.isdecimal() and int(name) < _MAX_PARAMS:
            arrays[int(name)] = array_of(member, view)
        else:
            raise StructureError(f"a dataset {member.name} where only params' numbers should be")
    return tuple(arrays.get(i) for i in range(max(arrays, default=-1) + 1)), has_groups
