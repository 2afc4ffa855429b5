"""What a feed does on the host; cupy/test_staging.py is about GPUs, layers/parts/test_reading.py about both."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.staging import StagedFeed
from dtrain.core.engines.feed import Feed, make_feed
from dtrain.data.loader import Loader
from dtrain.data.sampler import Sampler, Shard
from dtrain.data.synthetic_reader import SyntheticReader
from dtrain.data.transformer import Transformer, TransformSpec
from tests.played.cupy import play_cupy


def make_reader() -> SyntheticReader:
    transformer = Transformer(TransformSpec(crop_size=4, mirror=True), train=True)
    return SyntheticReader([(3, 5, 6), ()], Sampler(20), transformer)


def test_make_feed_takes_the_one_of_the_engine_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)
    assert type(make_feed(create_engine("reference"), make_reader())) is Feed
    assert type(make_feed(create_engine("cupy"), make_reader())) is StagedFeed


@pytest.mark.parametrize("num_tops", [1, 2])
def test_next_on_the_host_gives_the_reader_s_floats(num_tops: int) -> None:
    loaders = [Loader(make_reader(), 4, Shard()) for _ in range(2)]
    feed, tops = make_feed(create_engine("reference"), make_reader()), [Blob() for _ in range(num_tops)]
    for loader in loaders:
        loader.start(6, num_batches=2)
    for _ in range(2):
        feed.next(loaders[0], tops)
        for top, values in zip(tops, loaders[1].next().arrays, strict=False):
            np.testing.assert_array_equal(top.data, values, strict=True)
    with pytest.raises(StopIteration):
        feed.next(loaders[0], tops)
    assert feed.device_bytes(loaders[0]) == 0
    for loader in loaders:
        loader.close()
