"""Running units of work, and showing how far they are."""
