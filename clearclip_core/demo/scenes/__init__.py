"""Drawn scenes with their ground truth: textures, canvas, things and ground; imports nothing of
the core but the words of `clip`."""
