"""What each method of fine-tuning does, and the options that it reads."""
