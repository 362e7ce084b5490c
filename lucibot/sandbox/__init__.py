"""Code of a stranger, run where it can do no harm."""
