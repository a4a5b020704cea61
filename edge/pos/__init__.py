"""A till and a phone for people and scripts: the `cbdc-pos` command."""
