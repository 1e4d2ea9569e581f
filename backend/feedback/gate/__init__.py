"""The acceptance gate: which predictions need no look, and what keeps checking that."""
