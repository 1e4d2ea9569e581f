"""Benchmarks and comparisons: data sets, confusion matrix, runner and checkpoint; imports the
segmenter and what that imports."""
