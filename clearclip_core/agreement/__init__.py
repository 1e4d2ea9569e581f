"""Compare what several people have painted on one image."""
