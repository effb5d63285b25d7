"""Samplers: which examples beam search may use as demonstrations of an anchor. One file each."""
