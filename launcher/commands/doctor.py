"""``dtrain doctor``: look at everything that training needs of this machine."""

from __future__ import annotations

import argparse

from dtrain.launcher.diagnosis import diagnose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options: there are none."""


def run(args: argparse.Namespace) -> int:
    """Print the findings, then the problems; return 2 if there are any."""
    problems = []
    for finding in diagnose():
        print(f"{finding.subject + ':':<18} {finding.text}", flush=True)
        problems += [finding.problem] if finding.problem else []
    print("\n".join(problems or ["ok"]))
    return 2 if problems else 0
