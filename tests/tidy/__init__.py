"""The house rules as pure functions of source text, and their own tests."""
