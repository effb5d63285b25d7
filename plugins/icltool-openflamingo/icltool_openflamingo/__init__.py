"""OpenFlamingo models for icltool; see README.md. The hooks are in `icltool_openflamingo.plugin`."""
