"""What both operations share: argument checks, the choice of backend, supervised rows, softmax statistics."""
