"""What is learned from a run: evaluation, prediction, comparison and inspection."""
