"""Long-context benchmarks: generators, graders that are pure functions, and a runner."""
