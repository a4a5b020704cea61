"""The rules: every refusal, what an acceptance does, and that gateway and issuer agree."""
