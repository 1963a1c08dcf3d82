"""Training by skorch."""
