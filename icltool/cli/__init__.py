"""The command line. `app` holds the commands and the error boundary; each command is a module of its own."""
