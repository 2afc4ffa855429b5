"""Reading NODES×RANKS and the sizes on the way there."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.launcher.simulation.cluster import Cluster, clusters_up_to, parse_cluster


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("512x8", Cluster(512, 8)),
        ("512×8", Cluster(512, 8)),
        ("1X4", Cluster(1, 4)),
        ("4096x1", Cluster(4096, 1)),
    ],
)
def test_parse_cluster_of_nodes_and_ranks_gives_both(text: str, cluster: Cluster) -> None:
    assert parse_cluster(text) == cluster


@pytest.mark.parametrize("text", ["8", "0x8", "8x0", "x8", "8x8x8", "-1x8", "1.5x2", "", "ax8"])
def test_parse_cluster_of_other_texts_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--simulate: must be NODES×RANKS-PER-NODE such as 512x8, got"):
        parse_cluster(text)


def test_parse_cluster_of_too_many_ranks_is_refused() -> None:
    with pytest.raises(UserError, match="must be at most 4096 ranks, got 513x8 = 4104"):
        parse_cluster("513x8")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1x1", "1x1"),
        ("1x3", "1x1 1x2 1x3"),
        ("4x1", "1x1 2x1 4x1"),
        ("3x6", "1x1 1x2 1x4 1x6 2x6 3x6"),
        ("512x8", "1x1 1x2 1x4 1x8 2x8 4x8 8x8 16x8 32x8 64x8 128x8 256x8 512x8"),
    ],
)
def test_clusters_up_to_a_size_fill_a_node_and_then_add_nodes(text: str, sizes: str) -> None:
    assert " ".join(map(str, clusters_up_to(parse_cluster(text)))) == sizes
