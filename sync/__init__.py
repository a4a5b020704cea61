"""How journals travel: envelopes, the exchange, its states, and what carries it."""
