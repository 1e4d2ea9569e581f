"""What projects learn from corrections: examples, versions and thresholds; imports no report."""
