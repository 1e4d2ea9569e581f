"""Scores that follow corrected images: training examples, fitting and serialization; imports
`segmentation` and what that imports."""
