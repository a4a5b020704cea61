"""The command that checks vector files: `python -m wallet.protocol.vectors FILE...`."""
