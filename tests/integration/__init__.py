"""Tests against real servers and processes on loopback."""
