"""The command line `clearclip-backend`; imports all of the backend."""
