"""From files to a graph: which layers a net has in a phase, how they are connected, what learns.

prototxt ──> recipe (solver and nets, upgraded) ──> graph (filtered, checked, split) ──> net
"""
