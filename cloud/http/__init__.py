"""The cloud's HTTP interfaces: gateways by client certificate, people and apps by token."""
