"""What pages, commands and JSON say of a project: frozen values with finished sentences."""
