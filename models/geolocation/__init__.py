"""From base-station positions to P(ℓ|i), the probability of a location given its serving base station."""
