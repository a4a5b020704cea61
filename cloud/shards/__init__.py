"""Shards: databases that share the journals out, and what they tell each other (ADR 16)."""
