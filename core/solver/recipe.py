"""The recipe of a run: a solver file and the nets that it names, read, upgraded and checked together.

The first thing that a run does. All mistakes of the solver file's fields and of its nets come in one UserError.
Which nets a solver has, and in which state, follows caffe's solver.cpp (InitTrainNet, InitTestNets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dtrain.core.engines.engine import Promises
from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.net_recipe import NetRecipe, build_net_recipe
from dtrain.core.graph.upgrade import NetDocument, SolverDocument, upgrade_net, upgrade_solver
from dtrain.core.paths import resolve
from dtrain.core.prototxt import read_text
from dtrain.core.snapshots.formats import SnapshotFormat, format_named
from dtrain.core.solver.field_rules import find_mistakes
from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class Recipe:
    """All that a run's files say. `tests` are the test nets in Caffe's order."""

    path: str
    solver: caffe_pb2.SolverParameter
    document: SolverDocument
    train: NetRecipe
    tests: tuple[NetRecipe, ...]

    @property
    def precision(self) -> str:
        """What the nets are to compute in, by name, as create_engine takes it."""
        return _precision(self.solver)

    @property
    def promises(self) -> Promises:
        """What their engine is to keep to, as create_engine takes it."""
        return promises_of(self.solver)

    @property
    def weights(self) -> list[str]:
        """The files that the solver file names to start from: repeated, or separated by commas."""
        paths = [path.strip() for text in self.solver.weights for path in text.split(",")]
        return [resolve(path, self.path) for path in paths if path]


@dataclass(frozen=True)
class _NetChoice:
    """Where a net comes from: a document to be read, its phase unless the file says otherwise, and the state
    that the solver file (and the command line) puts on top.
    """

    read: Callable[[], NetDocument]
    phase: int
    state: caffe_pb2.NetState


def read_recipe(
    path: str,
    *,
    level: int | None = None,
    stages: Sequence[str] | None = None,
    solver_type: str | None = None,
    lr_scaling: int | None = None,
    precision: str | None = None,
) -> Recipe:
    """Read the solver file at `path` and its nets. level and stages come from the command line; solver_type,
    lr_scaling (a LearningRateScaling) and precision (by name), if given, count more than what the file says.

    Raises UserError with every mistake in any of the files.
    """
    document = upgrade_solver(read_text(path, caffe_pb2.SolverParameter))
    solver = document.message
    if solver_type is not None:
        solver.type = solver_type
    if lr_scaling is not None:
        solver.dtrain_param.lr_scaling = lr_scaling  # type: ignore[assignment]
    if precision is not None:
        solver.dtrain_param.precision = caffe_pb2.Precision.Value(precision)  # type: ignore[assignment]
    problems = Problems()
    _check_solver(document, problems)
    choices = _NetChoices(document, problems)
    train_choice = choices.train(level, stages)
    test_choices = choices.tests()
    documents: dict[int, NetDocument] = {}
    nets: list[NetRecipe] = []
    for choice in filter(None, [train_choice, *test_choices]):
        with problems.collected():
            nets.append(_build_net(choice, documents))
    problems.raise_if_any()
    train, *tests = nets
    return Recipe(path, solver, document, train, tuple(tests))


def read_precision(path: str) -> str:
    """Return what the solver file at `path` wants its nets to compute in, by name. Raises UserError."""
    return _precision(read_text(path, caffe_pb2.SolverParameter).message)


def promises_of(solver: caffe_pb2.SolverParameter) -> Promises:
    """Return what `solver` asks of its engine beside a precision."""
    extra = solver.dtrain_param
    return Promises(extra.strict_float32, extra.deterministic)


def snapshot_format(solver: caffe_pb2.SolverParameter) -> SnapshotFormat:
    """Return the format in which `solver` wants its snapshots; raises UserError for one that is not there."""
    return format_named(caffe_pb2.SolverParameter.SnapshotFormat.Name(solver.snapshot_format))


def _precision(solver: caffe_pb2.SolverParameter) -> str:
    return caffe_pb2.Precision.Name(solver.dtrain_param.precision)


def _build_net(choice: _NetChoice, documents: dict[int, NetDocument]) -> NetRecipe:
    """Build one net, reading each source once."""
    key = id(choice.read)
    if key not in documents:
        documents[key] = upgrade_net(choice.read())
    return build_net_recipe(documents[key], choice.phase, choice.state)


def _check_solver(document: SolverDocument, problems: Problems) -> None:
    """Note what the schema and its ranges can't say of a solver file: what must be given, and what is known."""
    solver = document.message
    missing = [field for field in ("base_lr", "lr_policy") if not solver.HasField(field)]
    for field in missing:
        problems.add(f"{document.path}: {field} must be given")
    if solver.test_iter and not solver.test_interval:
        problems.add(f"{document.where('test_iter', 0)}: test_iter needs a test_interval, got none")
    for field, problem in find_mistakes(solver):
        if field not in missing:
            problems.add(f"{document.where(*field.split('.'))}: {problem}")
    with problems.collected(f"{document.where('snapshot_format')}: "):
        snapshot_format(solver)


class _NetChoices:
    """Which nets a solver file names, in Caffe's order, and in which state each is."""

    def __init__(self, document: SolverDocument, problems: Problems) -> None:
        self.document = document
        self.solver: caffe_pb2.SolverParameter = document.message
        self.problems = problems
        self._readers: dict[tuple[str, int | None], Callable[[], NetDocument]] = {}

    def train(self, level: int | None, stages: Sequence[str] | None) -> _NetChoice | None:
        """Return the train net: exactly one of net, net_param, train_net, train_net_param."""
        given = [f for f in ("net", "net_param", "train_net", "train_net_param") if self.solver.HasField(f)]
        if len(given) != 1:
            self.problems.add(
                f"{self.document.path}: exactly one of net, net_param, train_net and train_net_param must be "
                f"given, got {', '.join(given) or 'none'}"
            )
            return None
        state = caffe_pb2.NetState()
        state.CopyFrom(self.solver.train_state)
        if level is not None:
            state.level = level
        state.stage.extend(stages or ())
        return _NetChoice(self._reader(given[0]), caffe_pb2.TRAIN, state)

    def tests(self) -> list[_NetChoice]:
        """Return the test nets: test_net_param*, test_net*, then the common net for what test_iter is left."""
        solver = self.solver
        readers = [self._reader("test_net_param", i) for i in range(len(solver.test_net_param))]
        readers += [self._reader("test_net", i) for i in range(len(solver.test_net))]
        common = "net" if solver.HasField("net") else "net_param" if solver.HasField("net_param") else ""
        num_left = len(solver.test_iter) - len(readers)
        if num_left < 0 or (num_left > 0 and not common):
            self.problems.add(
                f"{self.document.path}: test_iter must be given once per test net, got {len(solver.test_iter)} "
                f"for {len(readers)} test nets"
            )
            return []
        readers += [self._reader(common) for _ in range(num_left)]
        if solver.test_state and len(solver.test_state) != len(readers):
            self.problems.add(
                f"{self.document.where('test_state', 0)}: test_state must be given for each of the "
                f"{len(readers)} test nets or for none, got {len(solver.test_state)}"
            )
            return []
        states = list(solver.test_state) or [caffe_pb2.NetState()] * len(readers)
        return [
            _NetChoice(reader, caffe_pb2.TEST, state) for reader, state in zip(readers, states, strict=True)
        ]

    def _reader(self, field: str, index: int | None = None) -> Callable[[], NetDocument]:
        """Return the function that reads what `field` names; the same one for the same field."""
        if (field, index) not in self._readers:
            value = getattr(self.solver, field)
            value = value if index is None else value[index]
            place = (field,) if index is None else (field, index)
            inside = isinstance(value, caffe_pb2.NetParameter)
            self._readers[field, index] = lambda: (
                self._inner_document(value, place) if inside else self._read_file(value, place)
            )
        return self._readers[field, index]

    def _read_file(self, path: str, place: tuple[str | int, ...]) -> NetDocument:
        try:
            return read_text(resolve(path, self.document.path), caffe_pb2.NetParameter)
        except UserError as error:
            if len(error.problems) == 1 and error.problems[0].startswith(f"{path}: "):
                raise UserError(f"{self.document.where(*place)}: {error.problems[0]}") from None
            raise

    def _inner_document(self, net: caffe_pb2.NetParameter, place: tuple[str | int, ...]) -> NetDocument:
        """Return a net that is written inside the solver file as a document of its own."""
        depth = len(place)
        lines = {path[depth:]: line for path, line in self.document.lines.items() if path[:depth] == place}
        return NetDocument(net, self.document.path, lines)
