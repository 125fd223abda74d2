"""What `pile-tools sample` is made of: the machine's own text, manual pages as plain text, canaries."""
