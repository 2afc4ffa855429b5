"""The distribution function Φ of the normal distribution on arrays, which neither numpy nor cupy itself has.

With z = |x|/√2 it is Φ(−|x|) = ½·erfc(z), and erfc(z) = exp(−z²)·p(t)/(1 + 2·z), where p is smooth on all of
z ≥ 0 as a function of t = (z − 3)/(z + 3) in [−1, 1): a Chebyshev series of few terms. Its coefficients are
those of p at 60 Chebyshev points, computed with 40 digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly

CENTRE = 3.0  # the z at which t is 0; the series is shortest around it
FARTHEST = 30.0  # the z from which on exp(−z²) is 0

_SERIES = (
    1.17756257419656,
    0.005353904539615676,
    -0.09377550342284209,
    0.05436652555744322,
    -0.018976596707845208,
    0.004453426061462712,
    -0.000633553171055315,
    1.7661719523171295e-05,
    1.2841532864056376e-05,
    -2.0072285659062835e-06,
    -1.8075227904177382e-07,
    7.549828343796295e-08,
    1.8856685235529514e-09,
    -2.699519050081488e-09,
    -1.460079147979342e-11,
    1.0361607418220621e-10,
    1.4757157022386357e-12,
    -4.277340335489842e-12,
    -2.0792276047503156e-13,
    1.8134475607764627e-13,
    1.9733995633334228e-14,
    -7.288199829427792e-15,
    -1.5172397650673392e-15,
    2.348935949708452e-16,
    9.981812737187089e-17,
)


def _powers(num_terms: int) -> list[float]:
    """Return the first terms of the series as coefficients of powers of t, the highest first."""
    return [float(a) for a in cheb2poly(np.array(_SERIES[:num_terms]))[::-1]]


_FLOAT32 = _powers(12)  # the next term is below float32's precision
_FLOAT64 = _powers(len(_SERIES))


def normal_cdf(xp: Any, x: Any) -> Any:
    """Return Φ(x) = ½·(1 + erf(x/√2)), of the shape (at least one axis) and dtype of x; NaN stays NaN.

    The absolute error is a unit in the last place of 1, the relative error of small values 2·z² such units.
    """
    z = xp.abs(x)
    z *= math.sqrt(0.5)
    xp.minimum(z, FARTHEST, out=z)
    t = (z - CENTRE) / (z + CENTRE)
    highest, *lower = _FLOAT32 if x.dtype.itemsize <= 4 else _FLOAT64
    tail = xp.full_like(t, highest)
    for coefficient in lower:
        tail *= t
        tail += coefficient
    tail *= xp.exp(-z * z)
    z *= 4
    z += 2  # ½ of erfc is in here: 2·(1 + 2·z)
    tail /= z
    return xp.where(x > 0, 1 - tail, tail)
