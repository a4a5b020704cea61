"""Tests of the wallet room."""
