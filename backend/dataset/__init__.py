"""Labelled pictures of a project out to files of training sets, and of such files in; imports
`annotations` and what that imports. What cannot be read or written raises a `DatasetError`."""
