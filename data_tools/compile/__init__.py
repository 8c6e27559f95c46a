"""Trajectories to triples: inputs, order, budget, distractors and the output folder."""
