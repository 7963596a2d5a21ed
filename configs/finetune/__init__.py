"""Fine-tuning configs."""
