"""Other people's vectors, and other people's libraries."""
