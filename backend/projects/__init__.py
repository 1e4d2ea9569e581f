"""Which tasks of a project are meant, and which of them failed."""
