"""The page of `icltool report`: its content, where the content comes from, and how it is drawn."""
