"""What stands in for demonstrations: one file per way of changing what a frozen LVLM computes."""
