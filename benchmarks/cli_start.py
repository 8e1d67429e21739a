"""How long `owlcap --help` takes, and how much of that is the interpreter itself.

    python benchmarks/cli_start.py [--runs 15]

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "interpreter": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "owlcap", "--help"],
    "rl_help": [sys.executable, "-m", "owlcap", "rl", "--help"],
    "dry_run": [sys.executable, "-m", "owlcap", "sft", "toy_sft", "--dry-run"],
}


def seconds(command: list[str], runs: int) -> float:
    """Return the median wall time of a command, after one run that warms the disk cache."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Measure each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    figures = {name: round(seconds(command, runs), 4) for name, command in COMMANDS.items()}
    for name, value in figures.items():
        print(f"{name:<12} {value:.3f} s")
    print(json.dumps({"benchmark": "cli_start", "runs": runs, **figures}))


if __name__ == "__main__":
    main()
