"""How much faster icltool's scoring engine is than scoring every prompt by itself: `python -m tests.benchmarks.engine`."""
