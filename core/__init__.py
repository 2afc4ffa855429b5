"""What a rank computes, from prototxt to snapshot; the folders are the stages.

    prototxt/ ──> graph/ ──> net/ (layers/ × engines/) ──> solver/ ──> snapshots/

Follow one batch: net/net.py (forward) → layers/reading.py → the layers → engines/. Follow one gradient:
net/net.py (backward) → net/params.py, net/arena.py → solver/solver.py (all-reduce) → solver/updater.py →
solver/update_rules/. docs/architecture.md walks through both.
"""
