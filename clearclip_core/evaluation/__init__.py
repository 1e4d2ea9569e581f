"""Benchmarks: data sets, confusion matrix, runner, checkpoint and speed; imports the segmenter
and what that imports."""
