"""One module a layout of folders or lists: files on disk become samples."""
