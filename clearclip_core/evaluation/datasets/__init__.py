"""Data sets of the benchmarks: layouts, class names and preparation."""
