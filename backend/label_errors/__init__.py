"""Find annotations that disagree with what the others teach."""
