"""What each request passes: log, limits, authentication and errors."""
