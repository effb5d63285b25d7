"""OFA models for icltool; see README.md. The hooks are in `icltool_ofa.plugin`, the network in `icltool_ofa.network`."""
