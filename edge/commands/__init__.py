"""The subcommands of `cbdc-edge`, one module a subject."""
