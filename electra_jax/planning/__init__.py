"""Plans: what a run costs and whether it fits, before there is a machine for it."""
