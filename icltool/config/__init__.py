"""What the commands' options share: fields, profiles, and the order in which values win."""
