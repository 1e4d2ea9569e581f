"""Set the environment that torch and Ray read when they are loaded, and run the command line."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line.

    OpenMP's threads are set to sleep while they wait for each other. By default they spin, which is
    several times slower where they share the cores: with Label Studio, or with the threads that
    read images and draw masks.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers by default
    from backend.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
