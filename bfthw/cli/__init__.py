"""What serves the command line alone. It may reach for all packages; nothing of bfthw outside it imports it."""
