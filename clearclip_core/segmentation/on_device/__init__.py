"""Refined label maps and their runs, computed where the scores lie: the torch half of
`refined_argmax` and `run_components`, for GPUs."""
