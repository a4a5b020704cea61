"""The cloud's tables: numbered migrations, applied in order and never changed afterwards."""
