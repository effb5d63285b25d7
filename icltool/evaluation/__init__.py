"""How methods are compared: which settings there are, how they are answered and judged, and what is found in the answers."""
