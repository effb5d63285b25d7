"""Prompts of published systems, one TOML file each; see `icltool.contracts.prompt_file`."""
