"""The commands, a folder for each verb; `icltool.plugin.commands` describes the content of a folder."""
