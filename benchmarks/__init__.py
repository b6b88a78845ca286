"""Numbers: what the README and the docs claim, measured. Nothing here is a test."""
