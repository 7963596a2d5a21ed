"""Pretraining configs."""
