"""Retrievers: which demonstrations a query gets at evaluation. One file each, and `nearest` and `rows`."""
