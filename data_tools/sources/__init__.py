"""Readers: one file for each kind of agent, each turning one row into a Trajectory."""
