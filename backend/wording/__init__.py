"""Try words for labels on a project's pictures, and check its vocabulary."""
