"""What the offline tools and the training stack share: files, rows, progress, HTTP and HTML."""
