"""Set the environment that Ray reads when it is loaded, and run the command line."""

import os


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers by default
    from backend.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
