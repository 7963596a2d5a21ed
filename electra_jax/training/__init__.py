"""Machinery that knows neither ELECTRA nor tasks and would serve any other model."""
