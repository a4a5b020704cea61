"""Tests of the reconciler without a database."""
