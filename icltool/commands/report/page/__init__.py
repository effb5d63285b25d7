"""The page of `icltool report`: what it shows (content), where that comes from, and how it is drawn."""
