"""A page about runs: what a run directory holds, told in words, curves and samples."""
