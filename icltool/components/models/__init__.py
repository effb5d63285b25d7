"""LVLM adapters: one file per architecture; prompt formats and target arithmetic are shared."""
