"""``clearclip-backend``, with what has to be set before torch is loaded."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line.

    OpenMP's threads spin while they wait for each other, which is a little faster where they have
    the cores to themselves and several times slower where they do not: beside Label Studio, or
    beside the threads that read pictures and draw masks. So they are asked to sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
    from backend.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
