"""The stream inside a process, and what belongs to the other one without a server."""
