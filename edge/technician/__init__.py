"""The technician's page: what the gateway is doing, and what to do next, for whoever stands there.

Read-only, without scripts, on an own port; by default on loopback alone.
"""
