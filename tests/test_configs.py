"""The nets of configs/: files without mistakes, the sizes that their papers give, and first steps of the small ones.

Big nets are set up for their shapes alone: without records, and with params that nobody fills.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import struct
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import NetRecipe, build_net_recipe, read_net
from dtrain.core.graph.stock_caffe import find_foreign
from dtrain.core.layers import layer as layer_module
from dtrain.core.net.building import build_net
from dtrain.core.prototxt import read_text
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.data.convert_digits import convert_digits
from dtrain.data.convert_mnist import convert_mnist
from dtrain.data.sampler import Shard
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
NETS = sorted(path.parent.name for path in CONFIGS.glob("*/train_val.prototxt"))
FILES = ("README.md", "deploy.prototxt", "solver.prototxt", "train_val.prototxt")
BATCH_SIZE = 2

# How many numbers a net learns: weights, biases, and Scale's two for each channel. What several layers share counts
# once; running statistics don't count.
NUM_PARAMS = {
    "alexnet": 60_965_224,  # 34,944 + 307,456 + 885,120 + 663,936 + 442,624 + 37,752,832 + 16,781,312 + 4,097,000
    "caffenet": 60_965_224,  # AlexNet's: what is between the layers learns nothing
    "cifar10_full": 89_578,  # 2,432 + 25,632 + 51,264 + 10,250
    "cifar10_quick": 145_578,  # 2,432 + 25,632 + 51,264 + 65,600 + 650
    "densenet121": 7_978_856,  # Huang et al.: 8.0 million
    "digits": 38_282,  # 160 + 4,640 + 512·64 + 64 + 650
    "googlenet": 13_378_280,  # 6,998,552, and 3,188,840 and 3,190,888 of the classifiers on the way
    "lenet": 431_080,  # 520 + 25,050 + 400,500 + 5,010
    "lstm": 19_338,  # four gates of 64·(8 + 64 + 1), and 650
    "mnist_autoencoder": 2_837_314,  # 2·(784·1000 + 1000·500 + 500·250 + 250·30), and 4,314 biases
    "mnist_siamese": 431_102,  # LeNet's, and 22
    "mobilenet_v1": 4_231_976,  # Howard et al., table 8: 4.2 million
    "mobilenet_v2": 3_505_960,  # Sandler et al., table 4: 3.4 million of 3,504,872; 32·32 + 64 that widen nothing
    "resnet50": 25_557_096,  # 25,557,032, and 64 biases of conv1
    "smile": 167_522,  # 336 + 2,616 + 10,416, 168 of Scale, 48·5·5·128 + 128 + 258
    "squeezenet": 1_248_424,  # Iandola et al., table 1
    "vgg16": 138_357_544,  # Simonyan and Zisserman, table 2: 138 million
}

# What the deploy net gives for its input: blob → shape.
OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "alexnet": {"prob": (1, 1000)},
    "caffenet": {"prob": (1, 1000)},
    "cifar10_full": {"prob": (1, 10)},
    "cifar10_quick": {"prob": (1, 10)},
    "densenet121": {"prob": (1, 1000, 1, 1)},
    "digits": {"prob": (1, 10)},
    "googlenet": {"prob": (1, 1000)},
    "lenet": {"prob": (1, 10)},
    "lstm": {"prob": (8, 1, 10)},
    "mnist_autoencoder": {"reconstruction": (1, 784)},
    "mnist_siamese": {"feat": (1, 2)},
    "mobilenet_v1": {"prob": (1, 1000, 1, 1)},
    "mobilenet_v2": {"prob": (1, 1000, 1, 1)},
    "resnet50": {"prob": (1, 1000)},
    "smile": {"prob": (1, 2)},
    "squeezenet": {"prob": (1, 1000, 1, 1)},
    "vgg16": {"prob": (1, 1000)},
}

# What the reading layers give, where it isn't `data` of the deploy net's shape and `label`.
RECORDS: dict[str, dict[str, tuple[int, ...]]] = {
    "lstm": {"data": (8, BATCH_SIZE, 8), "cont": (8, BATCH_SIZE), "label": (8, BATCH_SIZE)},
    "mnist_siamese": {"pair_data": (BATCH_SIZE, 2, 28, 28), "sim": (BATCH_SIZE,)},
}

# Layers of the train net that the deploy net is to lack, by prefix.
TRAINED_ONLY: dict[str, tuple[str, ...]] = {"googlenet": ("loss1", "loss2")}
WITH_EXTENSIONS = {"digits"}  # nets that use what stock Caffe does not have

# Nets that train here, for as many iterations, and how many classes they begin to guess among; 0: none.
TRAINED = {
    "cifar10_full": 10,
    "cifar10_quick": 10,
    "digits": 10,
    "lenet": 10,
    "lstm": 10,
    "mnist_autoencoder": 0,
    "mnist_siamese": 0,
    "smile": 2,
}


@dataclass(frozen=True)
class Shapes:
    """What a net has once it is set up: learned params by layer and place, and outputs by blob."""

    params: dict[tuple[str, int], tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


def set_up(recipe: NetRecipe) -> Shapes:
    """Set the net up with params that are never written, so that they take no memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_module, "fill", lambda values, param, random: None)
        net = build_net(recipe, create_engine("reference"), Shard(0, 1))
    with closing(net):
        owners = [param for param in net.learnable_params if not param.is_statistic]
        params = {(param.layer_name, param.index): param.blob.shape for param in owners}
        return Shapes(params, {name: net.blobs[name].shape for name in net.outputs})


@cache
def deploy_shapes(name: str) -> Shapes:
    return set_up(read_net(str(CONFIGS / name / "deploy.prototxt"), caffe_pb2.TEST))


@cache
def shapes_in(name: str, phase: int) -> Shapes:
    return set_up(with_inputs(name, phase))


def with_inputs(name: str, phase: int) -> NetRecipe:
    """Return the recipe of train_val.prototxt with an Input layer in the place of each that reads records."""
    recipe = read_net(str(CONFIGS / name / "train_val.prototxt"), phase)
    net = recipe.document.message
    for layer in net.layer:
        if not layer.bottom and layer.type.endswith("Data"):
            shapes = record_shapes(name)
            dims = [" ".join(f"dim: {length}" for length in shapes[top]) for top in layer.top]
            for field in (
                "data_param",
                "image_data_param",
                "hdf5_data_param",
                "transform_param",
                "dtrain_param",
            ):
                layer.ClearField(field)
            layer.type = "Input"
            text_format.Parse("\n".join(f"shape {{ {each} }}" for each in dims), layer.input_param)
    return build_net_recipe(recipe.document, phase, caffe_pb2.NetState())


def record_shapes(name: str) -> dict[str, tuple[int, ...]]:
    if name in RECORDS:
        return RECORDS[name]
    net = read_net(str(CONFIGS / name / "deploy.prototxt"), caffe_pb2.TEST).graph.to_param()
    _, *record = net.layer[0].input_param.shape[0].dim
    return {"data": (BATCH_SIZE, *record), "label": (BATCH_SIZE,)}


def test_tables_have_a_row_for_every_net() -> None:
    assert sorted(NUM_PARAMS) == NETS
    assert sorted(OUTPUTS) == NETS


@pytest.mark.parametrize("name", NETS)
def test_config_has_all_files_and_a_row_in_the_table(name: str) -> None:
    assert {path.name for path in (CONFIGS / name).iterdir()} >= set(FILES)
    assert f"]({name})" in (CONFIGS / "README.md").read_text()


@pytest.mark.parametrize("name", NETS)
def test_solver_of_config_and_its_nets_have_no_mistakes(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    with caplog.at_level(logging.WARNING):
        recipe = read_recipe(f"configs/{name}/solver.prototxt")
        read_net(f"configs/{name}/deploy.prototxt", caffe_pb2.TEST)
    assert not caplog.messages
    assert recipe.solver.net == f"configs/{name}/train_val.prototxt"
    assert recipe.solver.snapshot_prefix == f"snapshots/{name}"
    assert len(recipe.tests) == 1


@pytest.mark.parametrize("name", sorted(set(NETS) - WITH_EXTENSIONS))
@pytest.mark.parametrize("file", ["train_val.prototxt", "deploy.prototxt"])
def test_net_of_config_can_be_read_by_stock_caffe(name: str, file: str) -> None:
    assert find_foreign(read_text(str(CONFIGS / name / file), caffe_pb2.NetParameter)) == []


@pytest.mark.parametrize("name", NETS)
def test_num_params_of_train_net_is_the_papers(name: str) -> None:
    shapes = shapes_in(name, caffe_pb2.TRAIN).params
    assert sum(math.prod(shape) for shape in shapes.values()) == NUM_PARAMS[name]


@pytest.mark.parametrize("name", NETS)
def test_params_of_test_and_deploy_net_are_those_of_the_train_net(name: str) -> None:
    trained = shapes_in(name, caffe_pb2.TRAIN).params
    prefixes = TRAINED_ONLY.get(name, ())
    kept = {param: shape for param, shape in trained.items() if not param[0].startswith(prefixes or "\0")}
    assert len(kept) < len(trained) or not prefixes
    assert deploy_shapes(name).params == kept
    tested = shapes_in(name, caffe_pb2.TEST).params
    assert kept.items() <= tested.items() <= trained.items()


@pytest.mark.parametrize("name", NETS)
def test_outputs_of_deploy_net_have_their_shapes(name: str) -> None:
    assert deploy_shapes(name).outputs == OUTPUTS[name]


# -- first steps -------------------------------------------------------------------------------------------------


def run_block_of(readme: str, num_blocks: int = 1) -> None:
    """Run the Python that configs/`readme` says makes the data, in the working directory."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (CONFIGS / readme).read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == num_blocks
    for block in blocks:
        exec(compile(block, readme, "exec"), {})


def make_mnist_files(folder: Path, num_images: int = 40) -> None:
    """Write MNIST's four files, of noise and of all ten labels."""
    random = np.random.default_rng(1)
    folder.mkdir()
    for split in ("train", "t10k"):
        images = random.integers(0, 256, (num_images, 28, 28), np.uint8)
        labels = np.arange(num_images, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))


def make_mnist() -> None:
    make_mnist_files(Path("mnist"))
    convert_mnist("mnist", "databases/mnist")


def make_pairs() -> None:
    make_mnist_files(Path("mnist"))
    run_block_of("mnist_siamese/README.md")


def make_cifar10() -> None:
    random = np.random.default_rng(1)
    folder = Path("cifar-10-batches-bin")
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        rows = random.integers(0, 256, (20, 1 + 3 * 32 * 32), np.uint8)
        rows[:, 0] = np.arange(20) % 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    run_block_of("cifar10_quick/README.md")


def jpeg(random: np.random.Generator, height: int, width: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def make_faces() -> None:
    random = np.random.default_rng(1)
    for index in range(40):
        path = Path("databases/smile", str(index % 2), f"{index}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(random, 60, 60))
    run_block_of("smile/README.md")


MAKERS = {
    "cifar10_full": make_cifar10,
    "cifar10_quick": make_cifar10,
    "digits": lambda: convert_digits("databases/digits"),
    "lenet": make_mnist,
    "lstm": lambda: run_block_of("lstm/README.md"),
    "mnist_autoencoder": make_mnist,
    "mnist_siamese": make_pairs,
    "smile": make_faces,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, in which configs/ is and data can be made."""
    (tmp_path / "configs").symlink_to(CONFIGS)
    (tmp_path / "databases").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_solver(name: str) -> Solver:
    """Return the solver of a config as its files say, but for tests of one batch."""
    recipe = read_recipe(f"configs/{name}/solver.prototxt")
    recipe.solver.test_iter[:] = [1]
    recipe.solver.random_seed = 1
    return Solver(recipe, engine=create_engine(), communicator=SingleCommunicator())


@pytest.mark.parametrize("name", TRAINED)
def test_first_steps_of_config_start_from_guessing_and_go_on(name: str, project: Path) -> None:
    MAKERS[name]()
    losses = []
    with closing(make_solver(name)) as solver:
        learned = [param.blob for param in solver.net.learnable_params if len(param.blob.shape) > 1]
        before = [blob.data.copy() for blob in learned]
        for _ in range(2):
            solver.step(1)
            losses.append(solver.smoothed_loss)
        assert all(np.isfinite(blob.data).all() for blob in learned)
        assert all((blob.data != old).any() for blob, old in zip(learned, before, strict=True))
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    if TRAINED[name]:  # every class has about the same probability
        assert losses[0] == pytest.approx(math.log(TRAINED[name]), rel=0.25)


def test_siamese_config_after_a_step_sends_both_images_through_the_same_weights(project: Path) -> None:
    make_pairs()
    with closing(make_solver("mnist_siamese")) as solver:
        solver.step(1)
        net = solver.net
        same = np.random.default_rng(1).random((1, 28, 28), np.float32)
        for name in ("data", "data_p"):
            net.blobs[name].data[...] = same
        net.forward(net.layer_names.index("slice_pair") + 1)
        np.testing.assert_array_equal(net.blobs["feat"].data, net.blobs["feat_p"].data)
        assert (net.blobs["feat"].data != 0).all()


def test_imagenet_databases_of_the_readme_are_read_by_caffenet(project: Path) -> None:
    random = np.random.default_rng(1)
    for split in ("train", "val"):
        folder = Path("ILSVRC2012", split)
        folder.mkdir(parents=True)
        for index, size in enumerate([(300, 280), (50, 400), (256, 256)]):
            (folder / f"{index}.JPEG").write_bytes(jpeg(random, *size))
        lines = [f"{index}.JPEG {index * 499}\n" for index in range(3)]
        Path(f"{split}.txt").write_text("".join(lines))
    run_block_of("README.md")
    recipe = read_net("configs/caffenet/train_val.prototxt", caffe_pb2.TEST)
    net = recipe.document.message
    del net.layer[2:]  # all but the two that read
    with closing(
        build_net(
            build_net_recipe(recipe.document, caffe_pb2.TEST, caffe_pb2.NetState()),
            create_engine(),
            Shard(0, 1),
        )
    ) as reading:
        reading.forward()
        assert reading.blobs["data"].shape == (50, 3, 227, 227)
        assert set(reading.blobs["label"].data) == {0, 499, 998}
