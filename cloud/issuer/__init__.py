"""The issuer: its officers, the supply, its certificates and keys."""
