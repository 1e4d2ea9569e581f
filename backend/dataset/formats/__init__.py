"""Reads and writes masks, one format a file; trusts none of what files that are read say."""
