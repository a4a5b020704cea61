"""The gateway's HTTP interfaces: the branch, pairing, metrics and the local administration."""
