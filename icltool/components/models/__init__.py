"""LVLM adapters: one module per architecture; prompt formats and target arithmetic are shared."""
