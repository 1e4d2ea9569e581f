"""Learns from corrections: examples, steps, versions and thresholds; imports no report."""
