"""Addresses of what lies in "device memory", as libraries are given them: how far a library may go from each."""

from __future__ import annotations

import weakref

import numpy as np

_GIVEN: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}  # by address: the memory, and where it ends


def address_of(values: np.ndarray) -> int:
    """Return where values lie; room_at knows them from then on."""
    root = values
    while isinstance(root.base, np.ndarray):
        root = root.base
    address = values.ctypes.data
    _GIVEN[address] = weakref.ref(root), root.ctypes.data + root.nbytes
    return address


def room_at(address: int) -> int:
    """Return how many bytes there are from an address that address_of has given; 0 if the memory is gone."""
    root, end = _GIVEN[address]
    return end - address if root() is not None else 0
