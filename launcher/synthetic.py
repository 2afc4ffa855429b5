"""The option --synthetic: records that are made up in place of those that a net's data layers would read.

Changes recipes between their reading and the building of nets; core/layers/parts/synthetic.py makes the records up.
"""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace

from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.solver.recipe import Recipe
from dtrain.data.synthetic_reader import Synthetic

log = logging.getLogger(__name__)


def add_synthetic_option(parser: argparse.ArgumentParser) -> None:
    """Add --synthetic."""
    parser.add_argument(
        "--synthetic",
        nargs="?",
        const=Synthetic(),
        type=parse_synthetic,
        metavar="CxHxW",
        help="make records up, of this shape (for HDF5Data one for each top: 40x8,40,1) or, without one, like"
        " the first record, if there is one, or of crop_size",
    )


def parse_synthetic(text: str) -> Synthetic:
    """Parse the shapes of made-up records, separated by commas: whole numbers of at least 1, such as 3x256x256."""
    shapes = [shape.split("x") for shape in text.split(",")]
    if not all(length.isdecimal() and int(length) >= 1 for shape in shapes for length in shape):
        raise argparse.ArgumentTypeError(
            f'must be a shape such as 3x256x256, or nothing (the file then comes before it), got "{text}"'
        )
    return Synthetic(tuple(() if shape == ["1"] else tuple(map(int, shape)) for shape in shapes))


def make_up(recipe: NetRecipe, synthetic: Synthetic | None) -> NetRecipe:
    """Return `recipe` with made-up records, if they are asked for."""
    return replace(recipe, synthetic=synthetic)


def make_up_all(recipe: Recipe, synthetic: Synthetic | None) -> Recipe:
    """Return a solver's `recipe` with made-up records in all its nets, if they are asked for."""
    tests = tuple(make_up(test, synthetic) for test in recipe.tests)
    return replace(recipe, train=make_up(recipe.train, synthetic), tests=tests)


def hint_at_made_up(recipe: Recipe, synthetic: Synthetic | None, is_first: bool = True) -> None:
    """Say in the log of rank 0 that records can be made up, if those of the train net are not there."""
    layers = recipe.train.document.message.layer if synthetic is None and is_first else ()
    for layer in layers:
        source = layer.data_param.source or layer.image_data_param.source or layer.hdf5_data_param.source
        if source and not os.path.exists(source):
            log.info("%s is not there; to run without it, on made-up records: --synthetic", source)
            return


def warn_of_made_up(synthetic: Synthetic | None, is_first: bool = True) -> None:
    """Say in the log of rank 0, if records are made up, that they are."""
    if synthetic is not None and is_first:
        log.warning("--synthetic: ALL RECORDS ARE MADE UP, no data are read; losses and scores mean nothing")
