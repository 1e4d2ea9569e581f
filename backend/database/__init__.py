"""The database: connections, migrations and backups; imports `settings` and what that imports."""
