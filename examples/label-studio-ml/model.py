"""ClearCLIP for label-studio-ml's own server: masks of whole pictures, from the names of labels."""

from backend.label_studio_ml import ClearClipModel

__all__ = ["ClearClipModel"]
