"""The keys, without a network and without a token."""
