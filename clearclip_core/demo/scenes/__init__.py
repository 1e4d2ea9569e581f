"""Drawn scenes with their truth: textures, canvas, things and ground."""
