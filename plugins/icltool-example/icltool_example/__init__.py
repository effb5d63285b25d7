"""An example plugin for icltool; see README.md. The hooks are in `icltool_example.plugin`."""
