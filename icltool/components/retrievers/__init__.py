"""Retrievers, which choose the demonstrations of a query. One module each, and shared ones such as `nearest` and `rows`."""
