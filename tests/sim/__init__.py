"""Simulations: many steps in any order, invariants after each."""
