"""What runs and people have to say, built into records and written down."""
