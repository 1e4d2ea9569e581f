"""Labelled pictures of a project out to files of training sets, and of such files in; imports
`prediction` and what that imports."""
