"""Nobody runs this."""
