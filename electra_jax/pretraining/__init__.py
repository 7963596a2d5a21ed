"""Pretraining: the run told in order, what a config becomes, and starts from other models."""
