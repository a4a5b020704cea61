"""The offline value protocol, version 1: pure, without I/O, clock or randomness."""
