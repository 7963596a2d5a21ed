"""Pure functions of parameters and arrays (Flax Linen): no optimizer, no data, no files."""
