"""Fronts and workers over the stream inside a process."""
