"""What training changed inside a model: attention, routing, and how far data and benchmarks overlap."""
