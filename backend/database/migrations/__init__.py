"""The revisions of the database's tables, and how a database is brought to the newest (Alembic)."""
