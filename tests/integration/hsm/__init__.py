"""The keys in a real token: SoftHSM2."""
