"""Measure how annotated images disagree with scores that have not learned from them."""
