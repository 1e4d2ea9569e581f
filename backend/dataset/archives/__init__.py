"""Data sets that people have asked for on the page, each as one file to download."""
