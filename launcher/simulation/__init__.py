"""Prediction of a training iteration on more ranks than are at hand, for ``dtrain check --simulate``.

net ──> work (work.py, compute.py) ──> one iteration (timeline.py) ──> sizes (prediction.py) ──> report.py
                  links.py ──> collectives.py ──┘
"""
