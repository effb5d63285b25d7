"""The embedded world: data and two tiny models that make every stage runnable without a download."""
