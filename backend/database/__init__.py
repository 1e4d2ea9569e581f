"""The database: connections, leases, migrations and backups; imports `settings` and what that
imports."""
