"""The embedded world: data and two tiny models with which every stage runs without a download."""
