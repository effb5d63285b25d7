"""Learners: what is trained to choose demonstrations, or to stand in for them."""
