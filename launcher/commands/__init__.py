"""The commands of the command line, one module each.

A module has ``add_arguments(parser)`` and ``run(args, …) -> int``; main.py's table names it and imports it
only when its command is chosen.
"""
