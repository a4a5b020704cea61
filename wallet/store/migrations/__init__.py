"""The numbered SQL files that bring a store from one schema version to the next."""
