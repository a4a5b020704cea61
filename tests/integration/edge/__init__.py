"""Tests of the edge with real ports, stores, tokens and processes."""
