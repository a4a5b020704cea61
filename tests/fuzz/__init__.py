"""Arbitrary and mutated bytes against every decoder."""
