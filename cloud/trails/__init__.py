"""The audit logs of gateways as their reports tell them, and those that do not hold together."""
