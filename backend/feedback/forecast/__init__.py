"""How many hours of annotation a project still takes, from the times of its annotations."""
