"""The training run: forward and backward, all-reduce, update, test, display, snapshot, iteration by iteration."""
