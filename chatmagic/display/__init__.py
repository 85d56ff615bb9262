"""What a person sees: the only rooms that meet the screen."""
