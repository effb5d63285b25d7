"""Interventions: learned state in place of demonstrations, one file per way of changing what a frozen LVLM computes."""
