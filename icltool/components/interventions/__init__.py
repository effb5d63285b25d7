"""Interventions: learned state in place of demonstrations, one module per way of changing the computation of a frozen
LVLM."""
