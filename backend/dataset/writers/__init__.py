"""Writes labelled pictures in the formats of trainers, one format a file."""
