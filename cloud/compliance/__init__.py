"""What people decide about entries that compliance holds."""
