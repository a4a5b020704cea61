"""The fixtures of every test here: a fresh PostgreSQL database."""

from tests.support.postgres import database, dsn, postgres

__all__ = ["database", "dsn", "postgres"]
