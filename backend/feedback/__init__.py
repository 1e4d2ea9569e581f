"""Compares annotations with predictions, reports on them and learns from them; imports `inference`
and what that imports."""
