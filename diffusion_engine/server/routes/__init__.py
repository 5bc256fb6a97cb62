"""What the server answers, one file a group of routes."""
