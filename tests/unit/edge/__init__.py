"""Tests of the edge, without a network."""
