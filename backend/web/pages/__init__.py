"""Serve the pages that people open, and their JSON; imports `middleware`, and no ML routes."""
