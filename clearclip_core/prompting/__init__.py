"""One mask from clicks or a box; imports `segmentation` and what that imports."""
