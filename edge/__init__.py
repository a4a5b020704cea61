"""The gateway in the branch: the daemon, its interfaces, its commands, and a till for people."""
