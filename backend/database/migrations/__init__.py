"""Changes of the database from one version of this package to the next."""
