"""The demo model: how it is trained, and its weights (drawn scenes only, not for photographs)."""
