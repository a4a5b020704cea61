"""What several tests share: servers, builders, small models."""
