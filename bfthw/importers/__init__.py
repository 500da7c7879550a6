"""Other people's checkpoints as chains."""
