"""One file a layout: a data set on disk -> its samples, in three lists."""
