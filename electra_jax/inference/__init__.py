"""Finished models in use: loaded, asked, and run over files."""
