"""pycaffe's Net: a net read from a prototxt file, with its blobs as numpy arrays.

Wraps the core's Net. What is looked at (blobs, layers, names) is in net_view.py, what computes in net_running.py.
Follows caffe's pycaffe.py and _caffe.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.layers.memory_data import MemoryData
from dtrain.core.net import net as core_net
from dtrain.core.net.building import build_net
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.pycaffe.nccl import NCCL
from dtrain.core.pycaffe.net_running import RunningNet
from dtrain.core.pycaffe.settings import engine_of_mode
from dtrain.core.snapshots import load_weights, read_hdf5_model, write_caffemodel, write_hdf5_model
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

Path = str | os.PathLike[str]


class Net(RunningNet):
    """A net read from a prototxt file: `Net(file, phase, level=0, stages=None, weights=None)`, or the older
    `Net(file, weights, phase)`.

    phase: caffe.TRAIN or caffe.TEST. weights: a .caffemodel, or its HDF5 form. Data layers in TRAIN read the share
    of solver_rank() among solver_count(). Raises UserError, a RuntimeError, for a file that is missing or
    mistaken.
    """

    def __init__(
        self,
        network_file: Path,
        phase: int | Path,
        level: int | None = None,
        stages: Sequence[str] | None = None,
        weights: Path | None = None,
    ) -> None:
        if isinstance(phase, str | os.PathLike):  # the older order: file, weights, phase
            if level is None:
                raise UserError(
                    f'Net: a phase must follow the weights, caffe.TRAIN or caffe.TEST, got none after "{phase}"'
                )
            weights, phase, level = phase, level, 0
        if phase not in caffe_pb2.Phase.values():
            raise UserError(f"Net: phase must be caffe.TRAIN (0) or caffe.TEST (1), got {phase}")
        recipe = read_net(os.fspath(network_file), phase, level=level or 0, stages=stages or ())
        super().__init__(build_net(recipe, engine_of_mode(), _shard(phase), seed=STATE.next_seed()))
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, net: core_net.Net) -> Net:
        """Wrap a net that a solver owns."""
        wrapped = cls.__new__(cls)
        RunningNet.__init__(wrapped, net)
        return wrapped

    def set_input_arrays(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Let the first layer, a MemoryData, read its batches from these arrays, which are not copied.

        data: (n, channels, height, width). labels: (n, 1, 1, 1) or (n,). Both are float32 and contiguous in C
        order, and n is a multiple of the batch size. Raises UserError for others, and for another first layer.
        """
        layer = self._net.layers[0]
        if not isinstance(layer, MemoryData):
            raise UserError(
                f'set_input_arrays: the first layer must be of type MemoryData, got "{layer.name}" of {layer.type}'
            )
        data, labels = np.asarray(data), np.asarray(labels)
        if labels.ndim == 1:
            labels = np.ascontiguousarray(labels[:, None, None, None])
        try:
            layer.set_arrays(data, labels)
        except UserError as error:
            raise UserError(f"set_input_arrays: {error}") from None

    # -- params and files -------------------------------------------------------------------------------------

    def copy_from(self, weights: Path) -> None:
        """Copy the weights of a .caffemodel, or of its HDF5 form, into the layers of the same names."""
        copy_weights(self._net, load_weights(weights), os.fspath(weights))

    def share_with(self, other: Net) -> None:
        """Use the params of the layers of the same names in `other` from now on.

        Raises UserError where shapes differ, and for the train net of a solver, whose params must stay in place.
        """
        if any(params.keeps_memory for params in self.params.values()):
            raise UserError(
                "share_with: a solver's train net keeps its own params; let the other net share them"
            )
        self._net.share_params_with(other._net)

    def save(self, path: Path) -> None:
        """Write the net's weights as a .caffemodel."""
        write_caffemodel(path, self._net.name, layer_records(self._net))

    def load_hdf5(self, path: Path) -> None:
        """Copy the weights of a .caffemodel.h5 into the layers of the same names."""
        copy_weights(self._net, read_hdf5_model(path), os.fspath(path))

    def save_hdf5(self, path: Path) -> None:
        """Write the net's weights as a .caffemodel.h5, params that layers share once."""
        write_hdf5_model(path, self._net.name, layer_records(self._net))

    # -- callbacks --------------------------------------------------------------------------------------------

    def before_forward(self, callback: Callable[[int], object]) -> None:
        """Call callback(layer index) before each layer of each forward from now on."""
        self._net.callbacks.before_forward.append(callback)

    def after_forward(self, callback: Callable[[int], object]) -> None:
        """Call callback(layer index) after each layer of each forward from now on."""
        self._net.callbacks.after_forward.append(callback)

    def before_backward(self, callback: Callable[[int], object]) -> None:
        """Call callback(layer index) before each layer of each backward from now on."""
        self._net.callbacks.before_backward.append(callback)

    def after_backward(self, callback: Callable[[int], object] | NCCL) -> None:
        """Call callback(layer index) after each layer of each backward from now on.

        An NCCL asks for gradients to be summed while backward runs, which dtrain decides by itself.
        """
        if not isinstance(callback, NCCL):
            self._net.callbacks.after_backward.append(callback)


def _shard(phase: int) -> Shard:
    """Return the share of a net that a script makes: Caffe deals records in TRAIN alone."""
    if phase == caffe_pb2.TEST or STATE.solver_count is None:
        return Shard(0, 1)
    if STATE.solver_rank >= STATE.solver_count:
        raise UserError(
            f"set_solver_rank: the rank must be below the count of solvers, {STATE.solver_count}, "
            f"got {STATE.solver_rank}"
        )
    return Shard(STATE.solver_rank, STATE.solver_count)
