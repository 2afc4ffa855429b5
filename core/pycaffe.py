"""pycaffe's interface: Net and the solvers under the names that Caffe's Python users know.

`import dtrain as caffe` gives these. They wrap the core's Net and Solver on one rank; errors are Python
exceptions, nothing ends the interpreter. Follows caffe's pycaffe.py and _caffe.cpp.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.layers import LAYERS
from dtrain.core.names import nearest
from dtrain.core.net import net as core_net
from dtrain.core.net.building import build_net
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.snapshots import load_weights, write_caffemodel
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.data.sampler import Shard
from dtrain.dist.create import create_communicator
from dtrain.proto import caffe_pb2

TRAIN: int = caffe_pb2.TRAIN
TEST: int = caffe_pb2.TEST

_seed = [0]


class Net:
    """A net read from a prototxt file: `Net(file, phase, level=0, stages=None, weights=None)`, or the older
    `Net(file, weights, phase)`.
    """

    def __init__(
        self,
        network_file: str,
        phase: int | str,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | None = None,
    ) -> None:
        if isinstance(phase, str):  # the older order: file, weights, phase
            weights, phase = phase, level
            level = 0
        recipe = read_net(network_file, phase, level=level, stages=stages or ())
        self._net = build_net(recipe, create_engine(), Shard(0, 1), seed=_seed[0])
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def _of(cls, net: core_net.Net) -> Net:
        """Wrap a net that a solver owns."""
        wrapped = cls.__new__(cls)
        wrapped._net = net
        return wrapped

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The blobs by name, in the order of the net."""
        return OrderedDict(self._net.blobs)

    @property
    def params(self) -> OrderedDict[str, BlobVec]:
        """The params of each layer that has any."""
        return OrderedDict(self._net.params)

    @property
    def inputs(self) -> list[str]:
        """The names of the input blobs."""
        return self._net.inputs

    @property
    def outputs(self) -> list[str]:
        """The names of the blobs that no layer consumes."""
        return self._net.outputs

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Any,
    ) -> dict[str, NDArray[Any]]:
        """Run layers start … end (names; all by default) and return the outputs' data, and that of `blobs`.

        inputs: arrays by the names of all the net's inputs. Raises UserError for other names or batch sizes.
        """
        net = self._net
        if inputs:
            self._set_inputs(inputs)
        first = 0 if start is None else self._layer_index(start)
        last = None if end is None else self._layer_index(end)
        net.forward(first, last)
        names = net.outputs if last is None else net.top_names[last]
        return {name: self._blob(name).data for name in [*names, *(blobs or ())]}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **tops: Any,
    ) -> dict[str, NDArray[Any]]:
        """Run backward from layer start to end (names) and return the inputs' diffs, and those of `diffs`.

        tops: diffs of outputs to begin from, by name.
        """
        net = self._net
        for name, values in tops.items():
            self._blob(name).diff[...] = values
        first = None if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        net.backward(first, last)
        names = net.inputs if end is None else net.bottom_names[last]
        return {name: self._blob(name).diff for name in [*names, *(diffs or ())]}

    def reshape(self) -> None:
        """Give all blobs their shapes anew, after an input has been reshaped."""
        self._net.reshape()

    def copy_from(self, weights: str) -> None:
        """Copy the weights of a .caffemodel into the layers of the same names."""
        copy_weights(self._net, load_weights(weights), os.fspath(weights))

    def save(self, path: str) -> None:
        """Write the net's weights as a .caffemodel."""
        write_caffemodel(path, self._net.name, layer_records(self._net))

    def _layer_index(self, name: str) -> int:
        return self._net.layer_names.index(_known(name, self._net.layer_names, "layer"))

    def _blob(self, name: str) -> Blob:
        return self._net.blobs[_known(name, self._net.blobs, "blob")]

    def _set_inputs(self, inputs: dict[str, Any]) -> None:
        if set(inputs) != set(self.inputs):
            raise UserError(f"forward: inputs must be {', '.join(self.inputs)}, got {', '.join(inputs)}")
        for name, values in inputs.items():
            blob, array = self._net.blobs[name], np.asarray(values)
            if not blob.shape or array.shape[:1] != blob.shape[:1]:
                raise UserError(
                    f'forward: input "{name}" must have batch size {blob.shape[:1]}, got {array.shape[:1]}'
                )
            blob.data[...] = array


def _known(name: str, names: Collection[str], kind: str) -> str:
    """Return `name`; raise UserError if it is none of the net's `names`."""
    if name not in names:
        hint = nearest(name, names)
        raise UserError(
            f'the net has no {kind} "{name}"{"; " + hint if hint else ""}; it has {", ".join(names)}'
        )
    return name


class SGDSolver:
    """A solver read from a prototxt file, on this process alone or on the ranks that an MPI launcher started."""

    def __init__(self, solver_file: str) -> None:
        recipe = read_recipe(solver_file)
        communicator = create_communicator(None, os.environ)
        self._solver = Solver(recipe, engine=create_engine(), communicator=communicator)
        self._net = Net._of(self._solver.net)
        self._test_nets = [Net._of(net) for net in self._solver.test_nets]

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._net

    @property
    def test_nets(self) -> list[Net]:
        """The test nets, which share the params of `net`."""
        return self._test_nets

    @property
    def iter(self) -> int:
        """The number of updates done."""
        return self._solver.iter

    def step(self, num_iterations: int) -> None:
        """Train `num_iterations` iterations."""
        self._solver.step(num_iterations)

    def solve(self, resume_file: str | None = None) -> None:
        """Train to the end, from a snapshot if one is given."""
        if resume_file is not None:
            self.restore(resume_file)
        self._solver.solve()

    def restore(self, path: str) -> None:
        """Take up the run of a .solverstate."""
        self._solver.restore(path)

    def snapshot(self) -> None:
        """Write a snapshot of now and wait until it is on the disk."""
        self._solver.snapshot()
        self._solver.keeper.finish()


def get_solver(solver_file: str) -> SGDSolver:
    """Return the solver of the file, of whatever type it names."""
    return SGDSolver(solver_file)


def set_mode_cpu() -> None:
    """Compute on the CPU: what every net does in this release."""


def set_random_seed(seed: int) -> None:
    """Let nets that are made from now on draw their random numbers from `seed`."""
    _seed[0] = seed


def layer_type_list() -> list[str]:
    """Return the known layer types."""
    return list(LAYERS)


def solver_type_list() -> list[str]:
    """Return the known solver types."""
    return list(UPDATE_RULES)
