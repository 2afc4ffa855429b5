"""Layers that users write in Python: their base class, how they are found, and what is said when they fail.

Below core/layers/python.py, which runs them as it runs any layer; nothing here knows nets or solvers.
"""
