"""Serve HTTP: the application, its server, metrics and OpenAPI; imports all but `cli`."""
