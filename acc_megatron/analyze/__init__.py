"""What training changed inside a model (attention, routing), and the overlap of training data and benchmarks."""
