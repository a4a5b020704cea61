"""Unit tests of the synchronisation."""
