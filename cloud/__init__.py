"""The issuer's side: certificates and supply, the ledger, reconciliation, the API and commands."""
