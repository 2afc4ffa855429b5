from __future__ import annotations

import numpy as np

from dtrain.core.solver.requests import NUM_REQUESTS, SNAPSHOT, STOP, Requests


def test_requests_are_sent_once() -> None:
    requests, values = Requests(), np.full(NUM_REQUESTS, 7, np.float32)
    requests.send(values)
    assert values.tolist() == [0, 0]
    requests.ask(SNAPSHOT)
    requests.ask(SNAPSHOT)
    requests.send(values)
    assert values[SNAPSHOT] == 1
    assert values[STOP] == 0
    requests.ask(STOP)
    requests.send(values)
    assert (values[STOP], values[SNAPSHOT]) == (1, 0)
    requests.send(values)
    assert values.tolist() == [0, 0]
