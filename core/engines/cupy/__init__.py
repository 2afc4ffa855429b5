"""The engine cupy: the reference engine's code on a GPU."""
