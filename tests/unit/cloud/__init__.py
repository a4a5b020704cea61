"""The parts of the cloud that need no database."""
