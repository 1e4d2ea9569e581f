"""Serve the model with label-studio-ml: `gunicorn _wsgi:app`, or `python _wsgi.py` to try it."""

from label_studio_ml.api import init_app
from model import ClearClipModel

app = init_app(model_class=ClearClipModel)

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090)
