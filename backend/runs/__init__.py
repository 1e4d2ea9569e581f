"""What a page or a command asks of a whole project: one kind of run for all of it."""
