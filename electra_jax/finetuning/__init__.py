"""Fine-tuning: the run told in order, several of them, and all of GLUE."""
