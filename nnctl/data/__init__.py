"""Where digits come from: known files and mirrors, downloads, IDX files, splits."""
