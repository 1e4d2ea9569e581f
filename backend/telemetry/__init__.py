"""Logs, tracing, and which task is where; imports `settings` and what that imports."""
