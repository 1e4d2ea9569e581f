"""Serve the routes that Label Studio calls; imports `middleware`, and no pages."""
