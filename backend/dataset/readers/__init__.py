"""Reads the masks of training sets, one format a file; trusts none of what the files say."""
