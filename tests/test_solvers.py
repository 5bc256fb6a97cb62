"""Every solver against its independent oracle, and the published numbers, through a plan."""
