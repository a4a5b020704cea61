"""The encrypted store of one gateway: SQLCipher, one writer thread, explicit migrations."""
