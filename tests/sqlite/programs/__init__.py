"""What runs in processes of its own, and what starts it."""
