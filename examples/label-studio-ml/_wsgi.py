"""Serve the model with label-studio-ml: `gunicorn _wsgi:app` or `label-studio-ml start`."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def make_app() -> Flask:
    """Return the server's application, with the settings of the environment."""
    from label_studio_ml.api import init_app
    from model import ClearClipModel  # reads MODEL_DIR

    return init_app(model_class=ClearClipModel)


def main(arguments: list[str] | None = None) -> None:
    """Serve as `label-studio-ml start FOLDER -p 9091` asks, with Flask's server for development."""
    parser = argparse.ArgumentParser(description="ClearCLIP with label-studio-ml")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("-d", "--debug", action="store_true")
    parser.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--model-dir", help="where weights are kept; else MODEL_DIR")
    parser.add_argument("--check", action="store_true", help="make a model first")
    given = parser.parse_args(arguments)

    logging.basicConfig(level=given.log_level or "INFO")
    if given.model_dir:
        os.environ["MODEL_DIR"] = given.model_dir
    app = make_app()
    if given.check:
        from model import ClearClipModel

        ClearClipModel()
    app.run(host=given.host, port=given.port, debug=given.debug)


if __name__ == "__main__":
    main()
else:
    app = make_app()
