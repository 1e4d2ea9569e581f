"""Which hosts may be connected to, how, and for how long; imports `errors` alone."""
