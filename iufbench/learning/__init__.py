"""What a method derives from: the base strategy, memories, rehearsal, penalties, resumable state."""
