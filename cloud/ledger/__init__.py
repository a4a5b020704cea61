"""The double-entry ledger: who has how much, and why, to the minor unit."""
