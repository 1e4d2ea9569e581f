"""The command line `clearclip`; imports all of the core."""
