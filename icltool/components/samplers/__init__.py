"""Samplers, which choose the candidate demonstrations of an anchor for beam search. One module each."""
