"""One call from its claim to its outcome."""
