"""The commands, a folder for each verb; `icltool.plugin.commands` says what is in one."""
