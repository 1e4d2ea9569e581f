"""The HTTP server: application, routes, pages and middleware; imports all but `cli`."""
