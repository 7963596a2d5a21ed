"""Models in and out of other projects' formats."""
