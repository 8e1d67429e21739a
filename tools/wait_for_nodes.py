"""Wait until the Ray cluster at RAY_ADDRESS has so many nodes.

python tools/wait_for_nodes.py 2
"""

from __future__ import annotations

import logging
import sys
import time

import ray

PAUSE_S = 1.0


def num_alive() -> int:
    """Nodes of the cluster that this process has joined."""
    return sum(1 for node in ray.nodes() if node["Alive"])


def main() -> None:
    """Join, wait and leave; whoever calls sets the deadline."""
    wanted = int(sys.argv[1])
    while not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError:  # the head is still starting
            time.sleep(PAUSE_S)
    while num_alive() < wanted:
        time.sleep(PAUSE_S)
    found = num_alive()
    print(f"{found} node{'s' if found != 1 else ''}")


if __name__ == "__main__":
    main()
