"""What a training leaves on disk and how it goes on, and its composition from the rooms below."""
