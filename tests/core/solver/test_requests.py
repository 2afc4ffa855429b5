from __future__ import annotations

import numpy as np

from dtrain.core.solver.extra_values import Extra
from dtrain.core.solver.requests import NUM_REQUESTS, Requests


def test_requests_are_sent_once() -> None:
    requests, values = Requests(), np.full(NUM_REQUESTS, 7, np.float32)
    requests.send(values)
    assert values.tolist() == [0, 0]
    requests.ask(Extra.SNAPSHOT)
    requests.ask(Extra.SNAPSHOT)
    requests.send(values)
    assert values[Extra.SNAPSHOT] == 1
    assert values[Extra.STOP] == 0
    requests.ask(Extra.STOP)
    requests.send(values)
    assert (values[Extra.STOP], values[Extra.SNAPSHOT]) == (1, 0)
    requests.send(values)
    assert values.tolist() == [0, 0]
