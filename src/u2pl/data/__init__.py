"""Files -> samples -> batches: one module per source of data, splits, joint transforms, inspection."""
