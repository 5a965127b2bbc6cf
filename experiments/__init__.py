"""Tables and figures from many runs."""
