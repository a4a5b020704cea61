"""What value is: the protocol, the store, the journal and the hosted wallets."""
