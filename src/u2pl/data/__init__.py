"""From files to samples to batches: readers, generated scenes, splits, joint transforms, inspection."""
