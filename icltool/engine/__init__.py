"""The scoring engine: sessions that answer scorers, the image-feature cache, and beam search over demonstrations."""
