"""Measure how far the annotations of several people agree."""
