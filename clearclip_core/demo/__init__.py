"""The demo model: drawn scenes and weights."""
