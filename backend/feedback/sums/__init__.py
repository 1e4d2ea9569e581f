"""Sums over what was read of annotations, kept up to date in the database as each is read."""
