"""Handle what all requests share: log, limits, auth and errors; imports no routes or pages."""
