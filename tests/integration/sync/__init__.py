"""Integration tests of the synchronisation."""
