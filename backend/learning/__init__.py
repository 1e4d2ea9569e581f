"""What projects learn from corrections: training examples, numbered versions, and the steps that
make versions of examples."""
