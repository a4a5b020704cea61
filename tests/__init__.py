"""The tests of the gateway and its cloud."""
