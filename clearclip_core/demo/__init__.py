"""The demo model: drawn scenes, training and weights; imports `clip` and `images`."""
