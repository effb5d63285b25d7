"""The command line. `app` holds the commands and the error boundary; each command has its own folder in
`icltool.commands`."""
