"""The benchmark of the masked loss: implementations, costs by formula, measurements, and the compiler's report."""
