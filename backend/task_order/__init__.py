"""Choose which tasks of a project to correct next: pictures that are no near-duplicates."""
