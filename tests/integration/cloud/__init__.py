"""The cloud against a real PostgreSQL."""
